"""Write `report.html`: all metrics of a run on one page.

The page has no scripts and no external references, and its content security policy forbids both.
The template engine escapes all text from a catalogue or a configuration; only the style sheet and
the charts are inserted verbatim.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from idiolect.errors import CheckpointError, InputError
from idiolect.pipeline.report.figures import draw
from idiolect.pipeline.report.verdict import judge
from idiolect.pipeline.stages.audit_stage import BrokenTerm
from idiolect.pipeline.system_runs import System
from idiolect.text.files import read_json, read_text, write_atomic

__all__ = ["write_report"]

_MEASURES = ("ndcg@10", "recall@100", "mrr@10")
_TESTS = ("search", "similar")
_CHOSEN, _LEFT_OUT = 25, 5  # number of fragmented terms to show
_SAME = 3  # searches to show if none changed
_EXCERPT = 160  # characters


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
    write_atomic(path, page.encode("utf-8", "replace"))
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
    labels = {system["name"]: system["label"] for system in evaluate["systems"]}
    return {
        **metrics,
        "base": Path(tomllib.loads(config).get("base", "idiolect-base")).name,
        "best": {test: _best(evaluate["systems"], test) for test in _TESTS},
        "broken": _broken(metrics["audit"]["broken"]),
        "charts": draw(run, metrics, seconds),
        "config": config,
        "css": _resource("page.css"),
        "labels": labels,
        "machine": manifest["machine"],
        "measures": _MEASURES,
        "searches": _searches(run),
        "tests": [test for test in _TESTS if evaluate[test]],
        "total": sum(seconds.values()),
        "verdict": judge(metrics),
        "versions": {"idiolect": manifest["idiolect"], **manifest["versions"]},
    }


def _searches(run: Path) -> dict[str, Any]:
    """Read the searches to show; only three if the vectors changed none of them."""
    searches = read_json(run / "stages" / "evaluate" / "searches.json")
    examples = searches["examples"]
    changed = any(search["before"] != search["after"] for search in examples)
    return {**searches, "changed": changed, "examples": examples[: None if changed else _SAME]}


def _broken(terms: Sequence[BrokenTerm]) -> dict[str, list[BrokenTerm]]:
    """Sort terms into split and chosen, split and not chosen, and phrases of whole words.

    A phrase of whole words, such as `of the`, saves tokens, but none of its words is split. A part
    of a chosen term does not count as left out: it is learned with the term.
    """
    whole = [term for term in terms if _is_whole(term)]
    broken = [term for term in terms if term not in whole]
    chosen = [term for term in broken if term["chosen"]]
    left_out = [
        term
        for term in broken
        if not term["chosen"] and not any(term["term"] in other["term"] for other in chosen)
    ]
    return {
        "chosen": chosen[:_CHOSEN],
        "left_out": left_out[:_LEFT_OUT],
        "phrases": [term for term in whole if term["chosen"] and " " in term["term"]],
    }


def _is_whole(term: BrokenTerm) -> bool:
    """Return whether each piece of a term is one of its whole words."""
    pieces = [piece.strip().casefold() for piece in term["pieces"]]
    return [piece for piece in pieces if piece] == term["term"].casefold().split()


def _best(systems: Iterable[System], test: str) -> dict[str, float | None]:
    """Find the best value of each metric, without controls."""
    scored = [s[test] for s in systems if s[test] and not s["control"]]  # type: ignore[literal-required]
    return {
        measure: max((s[measure] for s in scored if measure in s), default=None)
        for measure in _MEASURES
    }


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _decimals(value: float, places: int = 3) -> str:
    return f"{value:.{places}f}"


def _excerpt(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= _EXCERPT else f"{shown[:_EXCERPT]}…"


_FILTERS = {
    "count": lambda value: f"{value:,.0f}".replace(",", "\u202f"),
    "decimals": _decimals,
    "duration": _duration,
    "excerpt": _excerpt,
    "p": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
    "percent": lambda value: f"{value:.1%}",
    "signed": lambda value: f"{value:+.3f}".replace("-", "\u2212"),
    "size": lambda value: f"{value / 1e6:,.1f} MB",
}
