"""Translate filters to Milvus expressions, and metadata to the hashes that these look up.

Milvus stores an array of 63-bit hashes for each item, in the field `facts`. There is one hash for
each field, for each (field, type) and for each (field, type, value). Texts, numbers and booleans
therefore never match each other, lists match by element, and one inverted index over integers
answers equality. Only ranges read the metadata itself.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from idiolect.search.filters import And, Condition, Filter, Not, Or, Scalar
from idiolect.search.store.metadata_index import scalars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["expression", "metadata_hashes", "quote"]

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"})
_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def quote(value: Scalar) -> str:
    """Return a value as a literal of the expression language; it has fewer escapes than JSON."""
    return f'"{value.translate(_ESCAPES)}"' if isinstance(value, str) else json.dumps(value)


def expression(node: Filter) -> str:
    """Return the Milvus expression that is true for the items that match a filter."""
    match node:
        case And(parts):
            return f"({' and '.join(map(expression, parts))})" if parts else "(key >= '')"
        case Or(parts):
            return f"({' or '.join(map(expression, parts))})"
        case Not(part):
            return _complement(part)
        case Condition(field, "$exists"):
            return f"array_contains(facts, {_hash(field)})"
        case Condition(field, "$eq" | "$in", value):
            values = value if isinstance(value, tuple) else (value,)
            keys = sorted({_hash(field, *_typed(one)) for one in values})
            return f"array_contains_any(facts, {keys})"
        case Condition(field, operator, value):
            assert not isinstance(value, tuple)  # only `$in` has several
            type_name = "text" if isinstance(value, str) else "number"
            # Comparing values of different types is neither true nor false, so check the type.
            return (
                f"(array_contains(facts, {_hash(field, type_name)}) and"
                f" metadata[{quote(field)}] {_COMPARISONS[operator]} {quote(value)})"
            )


def _complement(node: Filter) -> str:
    """Return the expression of the complement of a filter; only conditions are negated."""
    match node:
        case And(parts):
            return f"({' or '.join(map(_complement, parts))})" if parts else "(key < '')"
        case Or(parts):
            return f"({' and '.join(map(_complement, parts))})"
        case Not(part):
            return expression(part)
        case Condition(field, "$exists" | "$eq" | "$in"):
            return f"(not {expression(node)})"
        case Condition(field, operator, value):
            assert not isinstance(value, tuple)
            type_name = "text" if isinstance(value, str) else "number"
            return (
                f"(not array_contains(facts, {_hash(field, type_name)}) or"
                f" not (metadata[{quote(field)}] {_COMPARISONS[operator]} {quote(value)}))"
            )


def metadata_hashes(metadata: Mapping[str, Any]) -> list[int]:
    """Return the distinct hashes of an item's metadata, ascending."""
    return sorted({_hash(*key) for key in _lookup_keys(metadata)})


def _lookup_keys(metadata: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield everything that a filter can look up: fields, their types and their values."""
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
