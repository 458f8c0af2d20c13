"""Parse metadata filters, in the syntax of Pinecone, into a tree.

    {"brand": "acme", "price": {"$gte": 10, "$lt": 50}, "$not": {"tags": {"$in": ["old"]}}}

All conditions of an object must match. `$ne`, `$nin` and `$not` are complements: an item that lacks
the field matches them, as in MongoDB. A list matches if one of its elements matches. Strings,
numbers and booleans are never equal to each other. `$gt`, `$gte`, `$lt` and `$lte` compare numbers
with numbers and strings with strings, so ISO dates can be compared. Dates, NumPy numbers and the
like are compared as they are stored (see `idiolect.search.metadata`). Integers of 2^63 and more are
compared as floats.

>>> parse({"price": {"$gt": 10}})
Condition(field='price', operator='$gt', value=10)
>>> parse('{"$or": [{"price": {"$above": 10}}]}')
Traceback (most recent call last):
idiolect.errors.InputError: filter: unknown operator $above at $or[0].price (known: $eq, $ne, ...)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idiolect.errors import InputError
from idiolect.search.metadata import is_unicode, json_form

__all__ = [
    "OPERATORS",
    "And",
    "Condition",
    "Filter",
    "Not",
    "Or",
    "Scalar",
    "conditions",
    "parse",
]

_MAX_DEPTH = 32
_MAX_VALUES = 10_000  # of one `$in`, the limit of Pinecone

OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$not")
"""The operators of a field."""

Scalar = str | bool | int | float
"""The type of a value in a filter."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Compare a field: `$eq $gt $gte $lt $lte` with a scalar, `$in` with several, or `$exists`."""

    field: str
    operator: str
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    """Match if all parts match; without parts, match everything."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Match if at least one part matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Match if the part does not match."""

    part: Filter


Filter = Condition | And | Or | Not


def parse(given: Mapping[str, Any] | str) -> Filter:
    """Parse a filter from a mapping or from JSON text.

    Raises:
        InputError: the filter is malformed; the message has the path of the error.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given, object_pairs_hook=_distinct_keys)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"filter: not JSON: {error}", hint="""for example '{"price": {"$lt": 50}}'"""
            ) from None
    return _parse_object(given, "", 0)


def conditions(node: Filter) -> Iterator[Condition]:
    """Yield every condition of a filter, from left to right."""
    match node:
        case Condition():
            yield node
        case And(parts) | Or(parts):
            for part in parts:
                yield from conditions(part)
        case Not(part):
            yield from conditions(part)


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object; of two equal keys, Python would silently keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise InputError(
            f"filter: {twice!r} occurs twice in one object",
            hint="""join both in one, or use $and""",
        )
    return found


def _parse_object(given: Any, place: str, depth: int) -> Filter:
    if not isinstance(given, Mapping):
        raise _error(f"expected an object, not {_show(given)}", place)
    if depth > _MAX_DEPTH:
        raise _error("nested too deeply", place, hint=f"at most {_MAX_DEPTH} levels")
    parts: list[Filter] = []
    for key, value in given.items():
        here = f"{place}.{key}" if place else str(key)
        if not isinstance(key, str) or not is_unicode(key):
            raise _error(f"{key!r} is not a field name", place, hint="use strings as keys")
        if key in ("$and", "$or"):
            parts.append(_parse_list(key, value, here, depth))
        elif key == "$not":
            parts.append(Not(_parse_object(value, here, depth + 1)))
        elif key.startswith("$"):
            allowed = "fields, $and, $or, $not"
            raise _error(f"{key} is not allowed here", place, hint=f"allowed: {allowed}")
        else:
            parts.append(_parse_field(key, value, here, depth))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _parse_list(key: str, given: Any, place: str, depth: int) -> Filter:
    if not _is_list(given) or not given:
        raise _error(f"expected a list of filters, not {_show(given)}", place)
    parts = tuple(_parse_object(part, f"{place}[{i}]", depth + 1) for i, part in enumerate(given))
    return And(parts) if key == "$and" else Or(parts)


def _parse_field(field: str, given: Any, place: str, depth: int) -> Filter:
    """Parse the condition of a field: a scalar, or an object of operators."""
    if not isinstance(given, Mapping):
        return Condition(field, "$eq", _scalar(given, place))
    if not given:
        raise _error("an empty condition", place, hint=f"known: {', '.join(OPERATORS)}")
    if depth > _MAX_DEPTH:
        raise _error("nested too deeply", place, hint=f"at most {_MAX_DEPTH} levels")
    parts = tuple(
        _parse_operator(field, operator, value, place, depth) for operator, value in given.items()
    )
    return parts[0] if len(parts) == 1 else And(parts)


def _parse_operator(field: str, operator: Any, value: Any, place: str, depth: int) -> Filter:
    here = f"{place}.{operator}"
    match operator:
        case "$eq":
            return Condition(field, "$eq", _scalar(value, here))
        case "$ne":
            return Not(Condition(field, "$eq", _scalar(value, here)))
        case "$gt" | "$gte" | "$lt" | "$lte":
            if isinstance(value, bool):
                raise _error(f"expected a number or a string, not {_show(value)}", here)
            return Condition(field, operator, _scalar(value, here))
        case "$in":
            return Condition(field, "$in", _scalars(value, here))
        case "$nin":
            return Not(Condition(field, "$in", _scalars(value, here)))
        case "$exists":
            if not isinstance(value, bool):
                raise _error(f"expected true or false, not {_show(value)}", here)
            present = Condition(field, "$exists", True)
            return present if value else Not(present)
        case "$not":
            if not isinstance(value, Mapping):
                raise _error(f"expected an object of operators, not {_show(value)}", here)
            return Not(_parse_field(field, value, here, depth + 1))
    raise _error(f"unknown operator {operator}", place, hint=f"known: {', '.join(OPERATORS)}")


def _scalars(given: Any, place: str) -> tuple[Scalar, ...]:
    if not _is_list(given) or not given:
        raise _error(f"expected a list of values, not {_show(given)}", place)
    if len(given) > _MAX_VALUES:
        raise _error(f"{len(given):,} values", place, hint=f"at most {_MAX_VALUES:,}")
    return tuple(_scalar(value, f"{place}[{i}]") for i, value in enumerate(given))


def _scalar(given: Any, place: str) -> Scalar:
    given = json_form(given)  # the form in which metadata is stored
    match given:
        case None:
            hint = '{"$exists": false} finds items without the field'
            raise _error("null is not a value", place, hint=hint)
        case str():
            if not is_unicode(given):
                raise _error(f"{given!r} is not valid Unicode", place)
            return given
        case bool():
            return given
        case int():
            fits = abs(given) < 2**63
            return (
                given
                if fits
                else _finite(float(given) if abs(given) < 2**1023 else math.inf, place)
            )
        case float():
            return _finite(given, place)
    raise _error(f"expected a string, a number or a boolean, not {_show(given)}", place)


def _finite(value: float, place: str) -> float:
    if not math.isfinite(value):
        raise _error(f"{value} is not a finite number", place)
    return value


def _is_list(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str | bytes)


def _show(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _error(message: str, place: str, *, hint: str = "") -> InputError:
    return InputError(f"filter: {message} at {place or 'the top'}", hint=hint)
