"""What goes into a store and what comes out: `Item`, `Hit`, and the checks on both doors.

Every check names the item at fault and says what to do; nothing is written when one item of a
batch fails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from idiolect.errors import InputError
from idiolect.search.diskann.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Hit",
    "Hits",
    "Item",
    "change",
    "check_count",
    "check_deletion",
    "check_items",
    "check_metric",
    "check_name",
    "check_query",
    "check_text",
    "distinct",
    "encode_metadata",
    "is_unicode",
]

_LONGEST_ID = 512  # bytes
_LARGEST_METADATA = 40 * 1024  # bytes of JSON, as Pinecone's
_LARGEST_TEXT = 16 << 20  # bytes
_MOST_HITS = 10_000


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that can be found: an id, its text, its metadata and, once encoded, its vector."""

    id: str
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Any JSON object; texts, numbers, booleans and lists of these at its top can be filtered."""
    vector: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """(dimensions,), or None where it is not known or was not asked for."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result: larger scores are better whatever the metric or mode."""

    id: str
    score: float
    text: str
    metadata: Mapping[str, Any]
    highlight: str = ""
    """The part of the text that answers the query best, words marked; empty if not asked for."""


Hits = list[Hit]
"""Results, best first."""


def change(
    item: Item,
    text: str | None,
    metadata: Mapping[str, Any] | None,
    vector: ArrayLike | None,
) -> Item:
    """Return an item with some parts changed; a field whose new value is None is removed."""
    fields = {**item.metadata, **(metadata or {})}
    removed = {name for name, value in (metadata or {}).items() if value is None}
    return Item(
        item.id,
        item.text if text is None else text,
        {name: value for name, value in fields.items() if name not in removed},
        item.vector if vector is None else np.asarray(vector),
    )


def distinct(ids: Iterable[str]) -> list[str]:
    """Return checked ids in their order, each once.

    Raises:
        InputError: one text was given instead of several, or an id cannot be one.
    """
    if isinstance(ids, str):
        raise InputError(f"ids is the text {ids!r}", hint="give a list of ids")
    return list(dict.fromkeys(check_name(id, "id") for id in ids))


def check_name(name: str, what: str) -> str:
    """Return an id or a namespace that can be stored.

    Raises:
        InputError: it is no text, too long, or holds characters that no file or wire carries.
    """
    if not isinstance(name, str):
        raise InputError(
            f"{what} {name!r} is a {type(name).__name__}, not a text", hint="convert it with str()"
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InputError(f"{what} {name!r} is not valid Unicode", hint="clean it first") from None
    if size > _LONGEST_ID:
        raise InputError(f"{what} {name[:40]!r}… has {size} bytes", hint=f"at most {_LONGEST_ID}")
    if "\x00" in name:
        raise InputError(f"{what} {name!r} holds a NUL character", hint="clean it first")
    return name


def check_count(top_k: int) -> int:
    """Return a number of hits that can be asked for; more than there are is no error.

    Raises:
        InputError: it is not a whole number from 1 to 10,000.
    """
    if (
        isinstance(top_k, bool)
        or not isinstance(top_k, int | np.integer)
        or not 1 <= top_k <= _MOST_HITS
    ):
        raise InputError(f"k is {top_k!r}", hint=f"ask for 1 to {_MOST_HITS:,} hits")
    return int(top_k)


def check_metric(metric: str) -> None:
    """Refuse a metric that there is not.

    Raises:
        InputError: it is unknown.
    """
    if metric not in get_args(Metric):
        raise InputError(f"unknown metric {metric!r}", hint=f"known: {', '.join(get_args(Metric))}")


def check_deletion(ids: Iterable[str] | None, filter: Mapping[str, Any] | str | None) -> None:
    """Refuse to delete by nothing at all, or in two ways at once.

    Raises:
        InputError: not exactly one of `ids` and `filter` is given.
    """
    if (ids is None) == (filter is None):
        raise InputError(
            "delete needs ids or a filter, and not both", hint="drop() empties a namespace"
        )


def check_query(vector: ArrayLike, dimensions: int, metric: Metric) -> NDArray[np.float32]:
    """Return a query as float32 (dimensions,), checked like a stored vector."""
    return _check_vector(vector, "the query", dimensions, metric)


def check_items(items: Sequence[Item], dimensions: int, metric: Metric) -> NDArray[np.float32]:
    """Check a batch and return its vectors as one float32 array (n, dimensions).

    Raises:
        InputError: an id is bad or occurs twice, a text is too large or not valid Unicode, or a
            vector is missing, of another width, not finite, or zero under cosine.
    """
    seen: set[str] = set()
    for item in items:
        if not check_name(item.id, "id"):
            raise InputError("an item has an empty id", hint="give every item a name of its own")
        if item.id in seen:
            raise InputError(
                f"id {item.id!r} occurs twice in one batch",
                hint="which of them is meant? Drop the other",
            )
        seen.add(item.id)
        check_text(item)
    vectors = np.empty((len(items), dimensions), dtype=np.float32)
    for row, item in enumerate(items):
        if item.vector is None:
            raise InputError(f"item {item.id!r} has no vector", hint="encode it first")
        given = item.vector
        if not _is_plain(given, dimensions):
            given = _check_vector(given, f"item {item.id!r}", dimensions, metric)
        vectors[row] = given
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", vectors, vectors)
    suspects = ~np.isfinite(squares) | ((squares == 0) & (metric == "cosine"))
    for row in np.flatnonzero(suspects).tolist():
        _check_vector(vectors[row], f"item {items[row].id!r}", dimensions, metric)
    return vectors


def check_text(item: Item) -> None:
    """Check that an item's text can be stored.

    Raises:
        InputError: it is no text, over 16 MiB, or not valid Unicode.
    """
    if not isinstance(item.text, str):
        raise InputError(
            f"item {item.id!r}: its text is a {type(item.text).__name__}", hint="convert it"
        )
    try:
        size = len(item.text.encode())
    except UnicodeEncodeError:
        raise InputError(
            f"item {item.id!r}: its text is not valid Unicode", hint="clean it first"
        ) from None
    if size > _LARGEST_TEXT:
        raise InputError(
            f"item {item.id!r}: its text has {size:,} bytes",
            hint=f"at most {_LARGEST_TEXT:,}; divide it into passages",
        )


def encode_metadata(item: Item) -> str:
    """Return an item's metadata as one line of JSON.

    Raises:
        InputError: it is no JSON object (the message names the place), or over 40 KiB.
    """
    if not isinstance(item.metadata, Mapping):
        raise InputError(
            f"item {item.id!r}: its metadata is a {type(item.metadata).__name__}, not an object",
            hint="give a dict of names and values",
        )
    try:
        text = json.dumps(
            dict(item.metadata), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        place = _place(item.metadata)
        raise InputError(
            f"item {item.id!r}: its metadata is not JSON at {place}"
            if place
            else f"item {item.id!r}: its metadata is not JSON: {error}",
            hint="use texts, finite numbers, booleans, null, lists and objects with text keys",
        ) from None
    if size > _LARGEST_METADATA:
        raise InputError(
            f"item {item.id!r}: its metadata has {size:,} bytes",
            hint=f"at most {_LARGEST_METADATA:,}; long text belongs in `text`",
        )
    if place := _place(item.metadata):  # json.dumps turns other keys into texts by itself
        raise InputError(
            f"item {item.id!r}: its metadata is not JSON at {place}", hint="use texts as keys"
        )
    return text


def _place(metadata: Mapping[str, Any]) -> str | None:
    """The first place of an object that JSON cannot hold: `size[2]: nan`."""
    waiting: list[tuple[str, Any]] = [("", metadata)]
    for _ in range(_LARGEST_METADATA):  # a value that holds itself would never end
        if not waiting:
            return None
        place, value = waiting.pop()
        if isinstance(value, dict) or value is metadata:
            for key, inner in value.items():
                if not isinstance(key, str) or not is_unicode(key):
                    return f"{place or 'the top'}: key {key!r}"
                waiting.append((f"{place}.{key}" if place else key, inner))
        elif isinstance(value, list | tuple):
            waiting += [(f"{place}[{i}]", inner) for i, inner in enumerate(value)]
        elif isinstance(value, float):
            if not np.isfinite(value):
                return f"{place}: {value!r}"
        elif isinstance(value, str):
            if not is_unicode(value):
                return f"{place}: {value!r}"
        elif value is not None and not isinstance(value, int):
            return f"{place}: a {type(value).__name__}"
    return None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; one read from a damaged source may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain(vector: object, dimensions: int) -> bool:
    """Whether a vector has the type and shape that are kept; its numbers may still be bad."""
    return (
        isinstance(vector, np.ndarray)
        and vector.dtype == np.float32
        and vector.shape == (dimensions,)
    )


def _check_vector(
    vector: ArrayLike, whose: str, dimensions: int, metric: Metric
) -> NDArray[np.float32]:
    try:
        given = np.asarray(vector)
    except ValueError:  # rows of different lengths
        given = np.empty(0, dtype=object)
    if given.dtype.kind not in "fiu":
        raise InputError(f"{whose}: its vector is not made of numbers", hint="give real numbers")
    if given.shape != (dimensions,):
        shape = f"{given.shape[0]} dimensions" if given.ndim == 1 else f"the shape {given.shape}"
        raise InputError(
            f"{whose}: its vector has {shape}, the store has {dimensions}",
            hint="was it made by another encoder?",
        )
    with np.errstate(over="ignore"):
        checked = given.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(checked))
    if len(bad):
        raise InputError(
            f"{whose}: its vector holds {given[bad[0]]} at {bad[0]}", hint="give finite numbers"
        )
    with np.errstate(over="ignore"):
        square = float(checked @ checked)
    if not np.isfinite(square):
        raise InputError(f"{whose}: its vector is too long for float32", hint="scale it down")
    if metric == "cosine" and square == 0:
        raise InputError(
            f"{whose}: its vector is zero, which has no direction and so no cosine",
            hint="was its text empty?",
        )
    return checked
