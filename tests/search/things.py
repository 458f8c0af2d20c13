"""Items, and the plain reading of filters that every store must agree with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from idiolect.search.items import Item

DIMENSIONS = 8


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)


def thing(number: int, /, **metadata: Any) -> Item:
    """An item with a vector and a text of its own."""
    return Item(f"t{number}", f"thing number {number}", metadata, vector(number))


def nearest(
    items: Sequence[Item], query: np.ndarray, k: int, metric: str = "cosine"
) -> list[tuple[str, float]]:
    """The k best (id, score), by the definition of each metric in double precision."""
    q = np.asarray(query, np.float64)

    def score(item: Item) -> float:
        v = np.asarray(item.vector, np.float64)
        if metric == "l2":
            return -float(((v - q) ** 2).sum())
        dot = float(v @ q)
        return dot if metric == "inner" else dot / float(np.linalg.norm(v) * np.linalg.norm(q))

    scored = sorted(((item.id, score(item)) for item in items), key=lambda p: (-p[1], p[0]))
    return scored[:k]


def matches(given: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Whether a filter, in the form users write it, holds for one item's metadata."""
    return all(_holds(key, value, metadata) for key, value in given.items())


def _holds(key: str, value: Any, metadata: Mapping[str, Any]) -> bool:
    if key == "$and":
        return all(matches(part, metadata) for part in value)
    if key == "$or":
        return any(matches(part, metadata) for part in value)
    if key == "$not":
        return not matches(value, metadata)
    conditions = value if isinstance(value, dict) else {"$eq": value}
    there = metadata.get(key)
    values = [v for v in (there if isinstance(there, list) else [there]) if _is_scalar(v)]
    return all(_compare(values, op, wanted) for op, wanted in conditions.items())


def _compare(values: list[Any], operator: str, wanted: Any) -> bool:
    if operator == "$not":
        return not all(_compare(values, op, inner) for op, inner in wanted.items())
    if operator == "$exists":
        return bool(values) == wanted
    if operator in ("$ne", "$nin"):
        return not _compare(values, {"$ne": "$eq", "$nin": "$in"}[operator], wanted)
    if operator == "$in":
        return any(_compare(values, "$eq", one) for one in wanted)
    kind = _kind(wanted)
    same = [v for v in values if _kind(v) == kind]
    tests = {
        "$eq": lambda v: v == wanted,
        "$gt": lambda v: v > wanted,
        "$gte": lambda v: v >= wanted,
        "$lt": lambda v: v < wanted,
        "$lte": lambda v: v <= wanted,
    }
    return any(tests[operator](v) for v in same)


def _kind(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return str if isinstance(value, str) else float


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool | int | float)
