"""A filter in Milvus's own language, and the facts beside each item that it asks about.

Each fact is a 63-bit hash: of a field, of a field and the kind of its value, of a field, kind and
value. So texts, numbers and booleans never mix, lists match by element, and one inverted index over
an array of integers answers equality; only ranges read the metadata itself.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from idiolect.search.filters import And, Condition, Filter, Not, Or, Scalar
from idiolect.search.store.metadata_index import scalars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["expression", "hashes", "quote"]

_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def quote(value: Scalar) -> str:
    """Return a value as it is written in an expression."""
    return json.dumps(value, ensure_ascii=False)


def expression(node: Filter) -> str:
    """Return what Milvus evaluates for each item to know whether a filter matches it."""
    match node:
        case And(parts):
            return f"({' and '.join(map(expression, parts))})" if parts else "(key >= '')"
        case Or(parts):
            return f"({' or '.join(map(expression, parts))})"
        case Not(part):
            return _denied(part)
        case Condition(field, "$exists"):
            return f"array_contains(facts, {_hash(field)})"
        case Condition(field, "$eq" | "$in", value):
            values = value if isinstance(value, tuple) else (value,)
            wanted = sorted({_hash(field, *_typed(one)) for one in values})
            return f"array_contains_any(facts, {wanted})"
        case Condition(field, operator, value):
            assert not isinstance(value, tuple)  # only `$in` has several
            kind = "text" if isinstance(value, str) else "number"
            # A value of another kind would make the comparison neither true nor false.
            return (
                f"(array_contains(facts, {_hash(field, kind)}) and"
                f" metadata[{quote(field)}] {_COMPARISONS[operator]} {quote(value)})"
            )


def _denied(node: Filter) -> str:
    """The complement of a filter; only whole conditions are negated, by what they lack."""
    match node:
        case And(parts):
            return f"({' or '.join(map(_denied, parts))})" if parts else "(key < '')"
        case Or(parts):
            return f"({' and '.join(map(_denied, parts))})"
        case Not(part):
            return expression(part)
        case Condition(field, "$exists" | "$eq" | "$in"):
            return f"(not {expression(node)})"
        case Condition(field, operator, value):
            assert not isinstance(value, tuple)
            kind = "text" if isinstance(value, str) else "number"
            return (
                f"(not array_contains(facts, {_hash(field, kind)}) or"
                f" not (metadata[{quote(field)}] {_COMPARISONS[operator]} {quote(value)}))"
            )


def hashes(metadata: Mapping[str, Any]) -> list[int]:
    """Return all facts of an item, each once, ascending."""
    return sorted({_hash(*fact) for fact in _facts(metadata)})


def _facts(metadata: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Everything a filter may ask of an item: a field, its kind, its values."""
    for name, stored in scalars(metadata):
        typed = _typed(bool(stored[0]) if isinstance(stored, bytes) else stored)
        yield (name,)
        if not isinstance(metadata[name], list | tuple):
            yield (name, typed[0])
        yield (name, *typed)


def _typed(value: Scalar) -> tuple[str, str]:
    if isinstance(value, bool):
        return "boolean", str(value)
    if isinstance(value, str):
        return "text", value
    return "number", repr(int(value) if float(value).is_integer() else value)


def _hash(*parts: str) -> int:
    data = json.dumps(parts).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1
