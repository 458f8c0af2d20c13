"""`report.html`: everything a run has measured, read from its folder and written as one page.

The page holds no script, refers to nothing outside itself, and says so to the browser. Whatever
comes from a catalogue or a configuration is escaped by the template engine; only the style sheet
and the charts are put in as they are.
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
from idiolect.pipeline.metrics import Search, System
from idiolect.pipeline.report import charts
from idiolect.pipeline.report.mapping import Plane, place
from idiolect.search.store import Store
from idiolect.text.files import read_json, read_text, write_atomic
from idiolect.vocabulary.terms import Terms

__all__ = ["write_report"]

_MEASURES = ("ndcg@10", "recall@100", "mrr@10")
_TESTS = ("search", "similar")
_MOST_POINTS = 4000  # of the map; of more items every second, third … is drawn
_PIECES = 6  # words of so many pieces and more are one bar
_SMOOTHED = 40  # of that share of the steps a value of a curve is the mean


def write_report(run: str | Path) -> Path:
    """Write the report of a finished run into its folder.

    Args:
        run: the folder.

    Returns:
        The page's path.

    Raises:
        InputError: there is no finished run.
        CheckpointError: one of its files is damaged.
    """
    run = Path(run)
    if not (run / "metrics.json").exists():
        raise InputError(f"no finished run in {run}", hint="idiolect run makes one, or goes on")
    try:
        page = _template().render(_told(run))
    except (KeyError, IndexError, TypeError, jinja2.UndefinedError) as error:
        raise CheckpointError(
            f"{run} holds figures that this version cannot read: {error}",
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


def _told(run: Path) -> dict[str, Any]:
    """Return what the page shows, by the names the template knows it by."""
    metrics = read_json(run / "metrics.json")
    manifest = read_json(run / "manifest.json")
    config = read_text(run / "idiolect.toml")
    evaluate = metrics["evaluate"]
    seconds = {name: step["seconds"] for name, step in manifest["steps"].items()}
    plane = _plane(run, metrics["index"]["items"])
    labels = {system["name"]: system["label"] for system in evaluate["systems"]}
    return {
        **metrics,
        "base": Path(tomllib.loads(config).get("base", "idiolect-base")).name,
        "best": {test: _best(evaluate["systems"], test) for test in _TESTS},
        "charts": _charts(run, metrics, seconds, labels, plane),
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
        raise CheckpointError(f"{path} is damaged: {error}", hint="run again") from error
    return searches[:10]


def _plane(run: Path, items: int) -> Plane | None:
    """Lay out the items of the index, or as many of them as can be seen."""
    if items < 3:
        return None
    texts: list[str] = []
    vectors: list[Any] = []
    with Store.open(run / "stages" / "index" / "index") as store:
        for item in islice(store.items(vectors=True), 0, None, -(-items // _MOST_POINTS)):
            texts.append(item.text)
            vectors.append(item.vector)
    terms = Terms.load(run / "stages" / "audit" / "terms.json")
    return place(np.asarray(vectors, np.float32), texts, [term.text for term in terms])


def _best(systems: Iterable[System], test: str) -> dict[str, float | None]:
    """Find the best value of each measure among the systems that are no controls."""
    scored = [s[test] for s in systems if s[test] and not s["control"]]  # type: ignore[literal-required]
    return {
        measure: max((s[measure] for s in scored if measure in s), default=None)
        for measure in _MEASURES
    }


def _tiles(evaluate: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the figures that a reader wants first."""
    tokens = evaluate["tokens"]
    if "domain" in tokens:
        general = (
            f"; of general text {tokens['general']['saved']:.1%}" if "general" in tokens else ""
        )
        yield {
            "title": "tokens saved",
            "value": f"{tokens['domain']['saved']:.1%}",
            "more": f"of domain text kept apart{general}",
        }
    bits = evaluate["language"]["systems"]
    if "base" in bits and "pretraining" in bits:
        more = "on domain text kept apart"
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
    for test, title in (("search", "search"), ("similar", "similar items")):
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
        "value": f"{sum(held)} of {len(held)} held",
        "more": "published rows; tokens elsewhere",
    }


def _charts(
    run: Path,
    metrics: Mapping[str, Any],
    seconds: Mapping[str, float],
    labels: Mapping[str, str],
    plane: Plane | None,
) -> dict[str, str | None]:
    evaluate, index = metrics["evaluate"], metrics["index"]
    ranked = {
        title: {s["label"]: s[test]["ndcg@10"] for s in evaluate["systems"] if s[test]}
        for test, title in (("search", "search"), ("similar", "similar items"))
        if evaluate[test]
    }
    bits = evaluate["language"]["systems"]
    curve = index["curve"]
    widths = evaluate["matryoshka"]
    return {
        "ranking": charts.dots(
            "nDCG@10 of each system",
            ranked,
            muted=[s["label"] for s in evaluate["systems"] if s["control"]],
        )
        if any(ranked.values())
        else None,
        "language": charts.dots(
            "Bits per byte of each model",
            {
                text: {_called(name, labels): of[text] for name, of in bits.items() if text in of}
                for text in ("domain", "general")
                if any(text in of for of in bits.values())
            },
            muted=[_called(name, labels) for name in bits if _is_control(name)],
        )
        if bits
        else None,
        "pieces": _pieces(metrics["audit"]),
        "training": charts.lines("Training loss", _curves(run), x="step", y="loss", height=2.6),
        "index": charts.lines(
            "Recall of the index against speed",
            {
                "": [
                    charts.Line(
                        "graph",
                        [point["queries_per_second"] for point in curve],
                        [point["recall"] for point in curve],
                    )
                ]
            },
            x="queries a second",
            y="recall@10",
            marked=True,
        ),
        "matryoshka": charts.lines(
            "nDCG@10 by dimensions kept",
            {
                "": [
                    charts.Line(
                        title,
                        [width["dimensions"] for width in widths if test in width],
                        [width[test] for width in widths if test in width],
                    )
                    for test, title in (("search", "search"), ("similar", "similar items"))
                    if any(test in width for width in widths)
                ]
            },
            x="dimensions",
            y="nDCG@10",
            marked=True,
            log=True,
        )
        if len(widths) > 1
        else None,
        "map": charts.scatter(
            "Items and new terms on their two main axes",
            plane.points,
            dict(islice(plane.terms.items(), 60)),
        )
        if plane
        else None,
        "time": charts.dots("Seconds of each step", {"seconds": dict(seconds)}, number=".1f"),
    }


def _called(name: str, labels: Mapping[str, str]) -> str:
    """Return a system's label; the models that only the bits are measured of have none."""
    return labels.get(name, name.replace(".", ", "))


def _is_control(name: str) -> bool:
    return "." in name or name == "untrained"


def _pieces(audit: Mapping[str, Any]) -> str:
    """Draw which share of words is cut into one piece, two, three …"""
    shares = {}
    for name in ("domain", "general"):
        if audit[name]:
            pieces = {int(count): words for count, words in audit[name]["pieces"].items()}
            total = sum(pieces.values()) or 1
            heights = [pieces.get(count, 0) / total for count in range(1, _PIECES)]
            shares[name] = [*heights, 1 - sum(heights)]
    labels = [*map(str, range(1, _PIECES)), f"{_PIECES} or more"]
    return charts.bars("Words by pieces", shares, labels, y="share of words")


def _curves(run: Path) -> dict[str, list[charts.Line]]:
    """Read the losses of each training step, and of its controls."""
    panels: dict[str, list[charts.Line]] = {}
    for stage in ("distill", "adapt", "tune"):
        for prefix, label in (("", stage), ("plain.", "no new tokens"), ("random.", "random ones")):
            path = run / "stages" / f"{prefix}{stage}" / "metrics.jsonl"
            if path.exists():
                rows = [json.loads(row) for row in read_text(path).splitlines()]
                loss = np.array([row["loss"] for row in rows])
                panels.setdefault(stage, []).append(
                    charts.Line(
                        label if prefix else "with new tokens",
                        [row["step"] for row in rows],
                        _smoothed(loss).tolist(),
                        control=bool(prefix),
                        faint=None if prefix else loss.tolist(),
                    )
                )
    return panels


def _smoothed(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return at each step the mean of the steps just before it and it."""
    width = max(1, len(values) // _SMOOTHED)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    smoothed: np.ndarray[Any, Any] = (sums[ends] - sums[starts]) / (ends - starts)
    return smoothed


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
