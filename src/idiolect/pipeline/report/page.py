"""Write `report.html`: all metrics of a run on one page.

The page has no scripts and no external references, and its content security policy forbids both.
The template engine escapes all text from a catalogue or a configuration; only the style sheet and
the charts are inserted verbatim.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from idiolect.errors import CheckpointError, InputError
from idiolect.pipeline.report.figures import draw
from idiolect.pipeline.report.item_map import Plane, place
from idiolect.pipeline.system_runs import Search, System
from idiolect.search.store.store import Store
from idiolect.text.files import read_json, read_text, write_atomic
from idiolect.vocabulary.terms import Terms

__all__ = ["write_report"]

_MEASURES = ("ndcg@10", "recall@100", "mrr@10")
_TESTS = ("search", "similar")
_MAXIMUM_POINTS = 4000  # of the map; larger catalogues are sampled at regular intervals


def write_report(run: str | Path) -> Path:
    """Write the report of a finished run into its folder.

    Args:
        run: The folder.

    Returns:
        The page's path.

    Raises:
        InputError: There is no finished run.
        CheckpointError: One of its files is damaged.
    """
    run = Path(run)
    if not (run / "metrics.json").exists():
        raise InputError(f"no finished run in {run}", hint="start or resume it with idiolect run")
    try:
        page = _template().render(_context(run))
    except (KeyError, IndexError, TypeError, jinja2.UndefinedError) as error:
        raise CheckpointError(
            f"{run} has metrics that this version cannot read: {error}",
            hint="run it again with this version",
        ) from error
    path = run / "report.html"
    write_atomic(path, page.encode())
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= _FILTERS
    return environment.from_string(_resource("page.html.jinja"))


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text("utf-8")


def _context(run: Path) -> dict[str, Any]:
    """Return the variables of the template."""
    metrics = read_json(run / "metrics.json")
    manifest = read_json(run / "manifest.json")
    config = read_text(run / "idiolect.toml")
    evaluate = metrics["evaluate"]
    seconds = {name: stage["seconds"] for name, stage in manifest["stages"].items()}
    plane = _plane(run, metrics["index"]["items"])
    labels = {system["name"]: system["label"] for system in evaluate["systems"]}
    return {
        **metrics,
        "base": Path(tomllib.loads(config).get("base", "idiolect-base")).name,
        "best": {test: _best(evaluate["systems"], test) for test in _TESTS},
        "charts": draw(run, metrics, seconds, plane),
        "config": config,
        "css": _resource("page.css"),
        "labels": labels,
        "machine": manifest["machine"],
        "measures": _MEASURES,
        "searches": _searches(run),
        "spread": plane.spread if plane else None,
        "tests": [test for test in _TESTS if evaluate[test]],
        "tiles": list(_tiles(evaluate)),
        "total": sum(seconds.values()),
        "versions": {"idiolect": manifest["idiolect"], **manifest["versions"]},
    }


def _searches(run: Path) -> list[Search]:
    path = run / "stages" / "evaluate" / "searches.json"
    try:
        searches: list[Search] = json.loads(read_text(path))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged: {error}", hint="run idiolect run again"
        ) from error
    return searches[:10]


def _plane(run: Path, items: int) -> Plane | None:
    """Place the items of the index on a plane, or a sample of them."""
    if items < 3:
        return None
    texts: list[str] = []
    vectors: list[Any] = []
    with Store.open(run / "stages" / "index" / "index") as store:
        for item in islice(store.items(vectors=True), 0, None, -(-items // _MAXIMUM_POINTS)):
            texts.append(item.text)
            vectors.append(item.vector)
    terms = Terms.load(run / "stages" / "audit" / "terms.json")
    return place(np.asarray(vectors, np.float32), texts, [term.text for term in terms])


def _best(systems: Iterable[System], test: str) -> dict[str, float | None]:
    """Find the best value of each measure, without controls."""
    scored = [s[test] for s in systems if s[test] and not s["control"]]  # type: ignore[literal-required]
    return {
        measure: max((s[measure] for s in scored if measure in s), default=None)
        for measure in _MEASURES
    }


def _tiles(evaluate: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the most important figures."""
    tokens = evaluate["tokens"]
    if "domain" in tokens:
        general = (
            f"; of general text: {tokens['general']['saved']:.1%}" if "general" in tokens else ""
        )
        yield {
            "title": "tokens saved",
            "value": f"{tokens['domain']['saved']:.1%}",
            "more": f"of held-out domain text{general}",
        }
    bits = evaluate["language"]["systems"]
    if "base" in bits and "pretraining" in bits:
        more = "on held-out domain text"
        if "general" in bits["base"]:
            more += (
                f"; general {bits['base']['general']:.2f} → {bits['pretraining']['general']:.2f}"
            )
        yield {
            "title": "bits per byte",
            "value": f"{bits['base']['domain']:.2f} → {bits['pretraining']['domain']:.2f}",
            "more": more,
        }
    systems = {system["name"]: system for system in evaluate["systems"]}
    for test, title in (("search", "search"), ("similar", "similar")):
        before = systems.get("base", {}).get(test)
        after = systems.get("tuning", {}).get(test)
        if before and after:
            rival = systems.get("bm25", {}).get(test)
            yield {
                "title": f"{title}, nDCG@10",
                "value": f"{before['ndcg@10']:.3f} → {after['ndcg@10']:.3f}",
                "more": f"base → tuned; BM25 {rival['ndcg@10']:.3f}" if rival else "base → tuned",
            }
    kept = evaluate["promises"]
    held = kept["original_rows_identical"], kept["documents_changed"] == 0
    yield {
        "title": "promises",
        "value": f"{sum(held)} of {len(held)} kept",
        "more": "published rows unchanged; tokens of other text unchanged",
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _decimals(value: float, places: int = 3) -> str:
    return f"{value:.{places}f}"


_FILTERS = {
    "count": lambda value: f"{value:,.0f}".replace(",", "\u202f"),
    "decimals": _decimals,
    "duration": _duration,
    "excerpt": lambda text: " ".join(text.split())[:160],
    "p": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
    "percent": lambda value: f"{value:.1%}",
    "signed": lambda value: f"{value:+.3f}".replace("-", "\u2212"),
    "size": lambda value: f"{value / 1e6:,.1f} MB",
}
