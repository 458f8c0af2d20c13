"""Records of JSON files: one per line (JSON Lines), pretty-printed, or in an array.

A file whose lines are not JSON values by themselves is read as a sequence of values; the elements
of a top-level array are records. In such a file a malformed record is an error, because the start
of the next record cannot be found.

If the file is a single object that has neither an id nor a text, the records are the objects in its
list, or its values, whose ids are the keys.

`NaN` is read as null, because programs write it for a missing number.
"""

from __future__ import annotations

import codecs
import json
import logging
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from idiolect.errors import InputError
from idiolect.text.fields import DOCUMENT_ID, QUERY_ID, QUERY_TEXT, TEXT, TITLE, find_fields
from idiolect.text.record_types.compressed_file import file_state, file_type
from idiolect.text.record_types.text_lines import open_text, read_lines
from idiolect.text.skipped import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["has_a_value_on_each_line", "has_surrogates", "read_json"]

_USUAL = (*DOCUMENT_ID, *QUERY_ID, *TITLE, *TEXT, *QUERY_TEXT)
_LOG = logging.getLogger(__name__)
_SAMPLE_LINES = 2000
_SAMPLE_CHARACTERS = 1 << 20
_BLOCK = 1 << 20
_BETWEEN = " \t\r\n,\ufeff"
_REPEATED = Fault("repeated JSON key")
_MALFORMED = Fault("malformed JSON")
_PYTHON = Fault("Python dict instead of JSON")
_PYTHON_DICT = re.compile(r"\s*\{\s*'")


def read_json(path: Path, limit: int) -> Iterator[tuple[int, Any]]:
    """Stream the values of a JSON file, each with its line number.

    Args:
        path: The file.
        limit: Maximum size of a value, in bytes.

    Yields:
        Line number; an object, another value, or a `Fault` if the line cannot be read.

    Raises:
        InputError: The file cannot be read, or is malformed and does not have one value per line.
    """
    if not has_a_value_on_each_line(path, limit):
        yield from _unwrapped(path, _values(path, limit))
        return
    if file_type(path) == ".json":
        yield from _unwrapped(path, _lines(path, limit))
    else:
        yield from _lines(path, limit)


def _lines(path: Path, limit: int) -> Iterator[tuple[int, Any]]:
    """Read one value per line."""
    for number, line in read_lines(path, limit):
        if isinstance(line, Fault):
            yield number, line
        elif not line.isspace():
            value = _parse(line)
            is_python = value == _MALFORMED and _PYTHON_DICT.match(line)
            yield number, _PYTHON if is_python else value


def _unwrapped(path: Path, values: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Yield the records inside a file's only object, if that object is not a record itself.

    Examples: `{"count": 2, "products": [{…}, {…}]}`, and `{"7": {…}, "8": {…}}` with ids as keys.
    """
    first = next(values, None)
    if first is None:
        return
    second = next(values, None)
    inside = _records_inside(first[1]) if second is None and isinstance(first[1], dict) else None
    if inside is not None:
        name, records = inside
        _tell(path, file_state(path), name)
        for record in records:
            yield first[0], record
        return
    yield first
    if second is not None:
        yield second
    yield from values


@lru_cache(maxsize=1024)
def _tell(path: Path, state: tuple[int, int, bytes], name: str) -> None:
    """Log where the records were found, once per file even if it is read several times."""
    _LOG.warning("%s holds one object; its records are %s", path, name)


def _records_inside(value: dict[str, Any]) -> tuple[str, list[Any]] | None:
    """Return the location of the records that an object wraps, and the records; otherwise None."""
    if _is_record(value):
        return None
    lists = {
        name: inner
        for name, inner in value.items()
        if isinstance(inner, list) and any(map(_is_record, inner))
    }
    if len(lists) == 1:
        ((name, records),) = lists.items()
        return f"in {name!r}", records
    if not value or not all(map(_is_record, value.values())):
        return None
    return "its values, named by their ids", [
        inner if find_fields(inner, DOCUMENT_ID) else {"id": name, **inner}
        for name, inner in value.items()
    ]


def _is_record(value: object) -> bool:
    """Return whether a value is an object with an id or a text under a usual name."""
    return isinstance(value, dict) and bool(find_fields(value, _USUAL))


def has_surrogates(text: str) -> bool:
    """Return whether a text has a lone surrogate, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def has_a_value_on_each_line(path: Path, limit: int) -> bool:
    """Return whether each line is a value, rather than part of an array or of a longer value.

    A line that is not a value by itself may be damaged, or begin a value that spans several lines.
    The first such line decides.

    Args:
        path: The file.
        limit: Maximum size of a line, in bytes.

    Raises:
        InputError: The file cannot be read.
    """
    begun, is_first = "", True
    for number, (_, line) in enumerate(read_lines(path, limit)):
        if isinstance(line, Fault) or not (text := line.strip(_BETWEEN)):
            continue
        if begun:
            begun += line
        elif is_first and text.startswith("["):
            return False
        elif _parse(text) == _MALFORMED:
            begun, first = line, len(line)
        is_first = False
        if number > _SAMPLE_LINES or len(begun) > _SAMPLE_CHARACTERS:
            break
    found = _value_at(begun.lstrip(_BETWEEN), 0, True) if begun else _MALFORMED
    return isinstance(found, Fault) or found[1] <= first


class _RepeatedKeyError(ValueError):
    """An object has a repeated key, so one of the values would be lost."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedKeyError
    return found


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


# Not strict: accept a literal tab in a string, although JSON requires an escape.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, strict=False)


def _parse(line: str) -> Any:
    """Parse a line, ignoring a comma after the value."""
    try:
        value = _DECODER.decode(line)
    except _RepeatedKeyError:
        return _REPEATED
    except (ValueError, RecursionError):
        text = line.strip(_BETWEEN)
        return _parse(text) if text and len(text) < len(line.rstrip()) else _MALFORMED
    return Fault("bad UTF-8") if "\\u" in line and _has_half_characters(value) else value


def _has_half_characters(value: Any) -> bool:
    try:
        return has_surrogates(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return True


def _values(path: Path, limit: int) -> Iterator[tuple[int, Any]]:
    """Read consecutive values that span several lines or are in an array."""
    line, in_array, at_end = 1, False, False
    text, at = "", 0
    decoder = codecs.getincrementaldecoder("utf-8")()

    def fail(reason: str) -> NoReturn:
        raise InputError(
            f"{path} line {line}: {reason}",
            hint="JSON files hold one object a line, or an array of objects",
        )

    with open_text(path) as file:
        while True:
            start = at
            while at < len(text) and text[at] in _BETWEEN:
                at += 1
            line += text.count("\n", start, at)
            character = text[at : at + 1]
            if character == ("]" if in_array else "["):
                in_array, at = not in_array, at + 1
                continue
            found = _value_at(text, at, at_end) if character else None
            if isinstance(found, tuple):
                value, end = found
                yield line, value
                line, at = line + text.count("\n", at, end), end
            elif found == _REPEATED:
                fail(_REPEATED.reason)
            elif not at_end and len(text) - at <= limit:
                raw = file.read(_BLOCK)
                at_end = not raw
                text, at = text[at:] + decoder.decode(raw, at_end), 0
            elif found is not None:
                fail("malformed JSON" if at_end else f"no JSON value within {limit:,} bytes")
            elif in_array:
                fail("the array has no end; the file may be truncated")
            else:
                return


def _value_at(text: str, at: int, at_end: bool) -> tuple[Any, int] | Fault:
    """Parse the value at a position; the result may be a fault because more text must be read."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except _RepeatedKeyError:
        return _REPEATED
    except (ValueError, RecursionError):
        return _MALFORMED
    if end == len(text) and not at_end:  # a number may continue
        return Fault("incomplete JSON")
    if "\\u" in text[at:end] and _has_half_characters(value):
        return Fault("bad UTF-8"), end
    return value, end
