"""The metadata of an item: supported values, their stored form, and comparison.

Metadata is a JSON object. A value of another type is stored in its usual JSON form, if it has one:

    NumPy scalars and arrays    numbers, booleans, texts, and lists of these
    dates and times             text in ISO 8601, which filters compare as text
    Decimal                     a number, if a float keeps all its digits
    UUID, path                  text
    member of an Enum           its value

NaN, infinity, NaT, bytes, time deltas, sets and keys that are not texts have no such form. They
raise an error that names the item and the field, or are left out and counted.

Values are compared in their stored form: 1, 1.0 and true are three different values. The order of
keys in an object does not matter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from idiolect.search.items import Item

__all__ = ["check_labels", "encode_metadata", "is_unicode", "json_form", "same_metadata"]

_MAX_BYTES = 40 * 1024  # of JSON; the limit of Pinecone
_MAX_DEPTH = 100
_JSON_TYPES = frozenset({str, int, float, bool, type(None), dict, list})
_CONTAINERS = (dict, list, tuple, np.ndarray, Mapping)
_quote = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_MAX_PLAIN = 2**63
_MAX_INTEGER = 2**1023  # larger integers do not fit into a double, which JSON readers use


def check_labels(items: Iterable[Item], field: str | None) -> None:
    """Check that items have at most one value in the label field, if there is one.

    Raises:
        InputError: an item has a list.
    """
    if field is None:
        return
    for item in items:
        if isinstance(item.metadata.get(field), list | tuple):
            raise InputError(
                f"the item {item.id!r} has a list of {field}, the label field of the index",
                hint="a label is a single value; build the index without the label field",
            )


def encode_metadata(
    items: Iterable[Item], left_out: Counter[str] | None = None
) -> tuple[list[Item], list[str]]:
    """Convert the metadata of items to JSON.

    Args:
        items: any items.
        left_out: leave out the fields that cannot be stored, and count them here as
            `field: problem`. By default such a field is an error.

    Returns:
        The items with their metadata in JSON types, and each metadata as one line of JSON.

    Raises:
        InputError: metadata is not an object, has a value without a JSON form (the message has the
            path), or is over 40 KiB.
    """
    converted, texts = [], []
    for item in items:
        text = _plain_json(item.metadata)
        if text is None:
            item = replace(item, metadata=_convert(item, left_out))
            text = _encode(item.metadata)
        if 4 * len(text) > _MAX_BYTES and (size := len(text.encode())) > _MAX_BYTES:
            raise InputError(
                f"item {item.id!r}: its metadata has {size:,} bytes",
                hint=f"at most {_MAX_BYTES:,}; long text belongs in `text`",
            )
        converted.append(item)
        texts.append(text)
    return converted, texts


def _plain_json(metadata: Any) -> str | None:
    """Return the JSON of an object of plain texts and numbers, the most common case, or None.

    The result equals that of `_encode`, in a third of the time.
    """
    if type(metadata) is not dict:
        return None
    fields = []
    for name, value in metadata.items():
        kind = type(value)
        if type(name) is not str or not is_unicode(name):
            return None
        if kind is str and is_unicode(value):
            text = _quote(value)
        elif kind is bool:
            text = "true" if value else "false"
        elif (kind is int and -_MAX_PLAIN < value < _MAX_PLAIN) or (
            kind is float and math.isfinite(value)
        ):
            text = repr(value)
        else:
            return None
        fields.append(f"{_quote(name)}:{text}")
    return f"{{{','.join(fields)}}}"


def same_metadata(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether metadata in JSON types has the same stored form: 1, 1.0 and true differ."""
    if first != second:  # fast; ignores only the types of numbers and booleans
        return False
    return json.dumps(first) == json.dumps(second) or json.dumps(
        first, sort_keys=True
    ) == json.dumps(second, sort_keys=True)


def json_form(value: Any) -> Any:
    """Return the usual JSON form of a scalar; a value without one is returned unchanged.

    >>> json_form(date(2024, 5, 1)), json_form(Decimal("19.90")), json_form(b"raw")
    ('2024-05-01', 19.9, b'raw')
    """
    if isinstance(value, Enum):
        return json_form(value.value)
    if isinstance(value, np.datetime64):
        return value if np.isnat(value) else str(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        return float(value) if value.dtype.kind == "f" else value.item()
    if isinstance(value, date | time):
        return value.isoformat() if value == value else value  # pandas.NaT is a date
    if isinstance(value, Decimal):
        return _number(value)
    return str(value) if isinstance(value, UUID | PurePath) else value


def is_unicode(text: str) -> bool:
    """Whether a string can be encoded as UTF-8; one with lone surrogates cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: Decimal) -> int | float | Decimal:
    """Return a number that prints as the decimal does, or the decimal if there is none."""
    if not value.is_finite() or abs(value) >= _MAX_INTEGER:
        return value
    if value == value.to_integral_value():
        return int(value)
    number = float(value)
    return number if Decimal(repr(number)) == value else value


class _NoJSONFormError(Exception):
    """A value cannot be stored."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem


def _convert(item: Item, left_out: Counter[str] | None) -> dict[str, Any]:
    if not isinstance(item.metadata, Mapping):
        raise InputError(
            f"item {item.id!r}: its metadata is a {type(item.metadata).__name__}, not an object",
            hint="use a dict of field names and values",
        )
    converter = _Converter()
    metadata = {}
    for name, value in item.metadata.items():
        try:
            converter.check_key(name, "")
            metadata[str(name)] = converter.convert(value, name, 1)
        except _NoJSONFormError as error:
            if left_out is None:
                raise InputError(
                    f"item {item.id!r}: its metadata is not JSON at {error.place}: {error.problem}",
                    hint="use texts, finite numbers, booleans, null, lists and objects with text"
                    " keys, or leave such fields out: Index.add(…, skip_invalid_metadata=True),"
                    " index build --skip-invalid-metadata",
                ) from None
            left_out[f"{name!s:.40}: {error.problem}"] += 1
    return metadata


class _Converter:
    """Converts the metadata of one item, within a limit on the number of values."""

    def __init__(self) -> None:
        self._left = _MAX_BYTES  # a value has at least a byte; bounds the work if references repeat

    def convert(self, value: Any, place: str, depth: int) -> Any:
        """Return a value in JSON types.

        Raises:
            _NoJSONFormError: it has no JSON form.
        """
        self._left -= 1
        if type(value) not in _JSON_TYPES:
            value = json_form(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            if not is_unicode(value):
                raise _NoJSONFormError(place, "text that is not valid Unicode")
            return str(value)
        if isinstance(value, int):
            if abs(value) >= _MAX_INTEGER:
                raise _NoJSONFormError(place, "a whole number of over 1,023 bits")
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise _NoJSONFormError(place, str(value))
            return float(value)
        if isinstance(value, np.ndarray) and not value.ndim:
            return self.convert(value[()], place, depth)
        if not isinstance(value, _CONTAINERS):
            raise _NoJSONFormError(place, f"a {type(value).__name__}")
        if depth >= _MAX_DEPTH or len(value) > self._left:
            start = place if len(place) <= 40 else f"{place[:40]}…"
            raise _NoJSONFormError(start, f"over {_MAX_DEPTH} levels or {_MAX_BYTES:,} values")
        if isinstance(value, Mapping):
            for key in value:
                self.check_key(key, place)
            return {
                str(key): self.convert(one, f"{place}.{key}", depth + 1)
                for key, one in value.items()
            }
        return [self.convert(one, f"{place}[{i}]", depth + 1) for i, one in enumerate(value)]

    @staticmethod
    def check_key(key: object, place: str) -> None:
        """Check that a key is a text.

        Raises:
            _NoJSONFormError: it is not.
        """
        if not isinstance(key, str) or not is_unicode(key):
            raise _NoJSONFormError(place or "the top", f"key {key!r}")
