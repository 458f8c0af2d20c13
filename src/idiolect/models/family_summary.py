"""Summarize what each model family supports, for `idiolect models` and the README."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from idiolect.models.family import Family
from idiolect.nn.config import TransformerConfig

__all__ = ["FamilySummary", "Objectives", "markdown_table", "summarize"]

Objectives = Callable[..., tuple[str, ...]]
"""A function that returns the pre-training objectives of a network, given its kind and heads; see
`training.objectives.objective_registry.objectives_for`."""

_HEADINGS = ("families", "attention", "positions", "task heads", "pre-training", "supports")


@dataclass(frozen=True, kw_only=True)
class FamilySummary:
    """The properties of a family that matter when choosing one."""

    title: str
    """Display name."""
    model_type: str
    """Its `model_type` in `config.json`."""
    attention: str
    """`causal`, `bidirectional` or `encoder-decoder`."""
    positions: str
    """How positions are encoded."""
    heads: tuple[str, ...]
    """The task heads of its classes."""
    objectives: tuple[str, ...]
    """The pre-training objectives that can train it."""
    supports: tuple[str, ...]
    """Other supported operations: `extend`, `encode`, `tune`, `generate`, `lora`, `layers` (using
    only the first layers as an encoder)."""
    classes: tuple[str, ...]
    """The class names that `config.json` may hold."""
    paper: str
    """Reference."""


def summarize(family: Family, objectives: Objectives) -> FamilySummary:
    """Summarize a family at its default configuration.

    Args:
        family: The family.
        objectives: A function that returns the pre-training objectives of a kind of network.
    """
    tasks = dict.fromkeys(task for a in family.architectures.values() for task in a.tasks)
    return FamilySummary(
        title=family.title,
        model_type=family.model_type,
        attention=family.kind,
        positions=family.config({"vocab_size": 1000}).position.replace("_", " + "),
        heads=tuple(task.replace("_", " ") for task in tasks),
        objectives=objectives(family.kind, tasks, carries_state=family.network.carries_state)
        if "language" in tasks
        else (),
        supports=_supported(family, tasks),
        classes=tuple(family.architectures),
        paper=family.paper,
    )


def _supported(family: Family, tasks: Container[str]) -> tuple[str, ...]:
    static = family.network.context_free
    verbs = {
        "extend": not static,
        "encode": True,
        "tune": True,
        "generate": "language" in tasks and family.kind != "bidirectional",
        # Fused recurrent kernels take whole weight matrices, so layers cannot have adapters.
        "lora": not static and family.make_config is TransformerConfig,
        "layers": not static and family.kind != "encoder-decoder",
    }
    return tuple(verb for verb, supported in verbs.items() if supported)


def markdown_table(families: Iterable[Family], objectives: Objectives) -> str:
    """Return the families as a Markdown table; families with equal cells share a row.

    Args:
        families: The families.
        objectives: As for `summarize`.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for summary in (summarize(family, objectives) for family in families):
        cells = (
            summary.attention,
            summary.positions,
            ", ".join(summary.heads) or "none",
            ", ".join(summary.objectives) or ("not yet" if summary.heads else "none"),
            ", ".join(summary.supports),
        )
        groups.setdefault(cells, []).append(summary.title)
    rows = [_HEADINGS, ("---",) * len(_HEADINGS)]
    rows += [(", ".join(titles), *cells) for cells, titles in groups.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
