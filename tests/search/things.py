"""Test items, and reference implementations of search and filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from idiolect.search.items import Item

DIMENSIONS = 8


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)


def thing(number: int, /, **metadata: Any) -> Item:
    """Return an item with a unique vector and text."""
    return Item(f"t{number}", f"thing number {number}", metadata, vector(number))


def nearest(
    items: Sequence[Item], query: np.ndarray, k: int, metric: str = "cosine"
) -> list[tuple[str, float]]:
    """Return the k best (id, score) by the definition of each metric, in double precision."""
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
    """Return whether a filter, as users write it, matches the metadata of an item."""
    return all(_holds(key, value, metadata) for key, value in given.items())


def _holds(key: str, value: Any, metadata: Mapping[str, Any]) -> bool:
    if key == "$and":
        return all(matches(part, metadata) for part in value)
    if key == "$or":
        return any(matches(part, metadata) for part in value)
    if key == "$not":
        return not matches(value, metadata)
    conditions = value if isinstance(value, dict) else {"$eq": value}
    stored = metadata.get(key)
    values = [v for v in (stored if isinstance(stored, list) else [stored]) if _is_scalar(v)]
    return all(_compare(values, op, operand) for op, operand in conditions.items())


def _compare(values: list[Any], operator: str, operand: Any) -> bool:
    if operator == "$not":
        return not all(_compare(values, op, inner) for op, inner in operand.items())
    if operator == "$exists":
        return bool(values) == operand
    if operator in ("$ne", "$nin"):
        return not _compare(values, {"$ne": "$eq", "$nin": "$in"}[operator], operand)
    if operator == "$in":
        return any(_compare(values, "$eq", one) for one in operand)
    operand_type = _storedtype(operand)
    same = [v for v in values if _storedtype(v) == operand_type]
    tests = {
        "$eq": lambda v: v == operand,
        "$gt": lambda v: v > operand,
        "$gte": lambda v: v >= operand,
        "$lt": lambda v: v < operand,
        "$lte": lambda v: v <= operand,
    }
    return any(tests[operator](v) for v in same)


def _storedtype(value: Any) -> type:
    if isinstance(value, bool):
        return bool
    return str if isinstance(value, str) else float


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool | int | float)
