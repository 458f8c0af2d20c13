"""The input and output of a store: `Item`, `Hit`, and the validation of both.

Each check names the invalid item and says what to do. If one item of a batch is invalid, nothing
is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from idiolect.errors import InputError
from idiolect.search.diskann.metric import Metric
from idiolect.text.arguments import iterate

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
    "check_item",
    "check_items",
    "check_metric",
    "check_name",
    "check_queries",
    "check_query",
    "distinct",
    "own_vector",
    "own_width",
]

_MAX_ID_BYTES = 512
_MAX_TEXT_BYTES = 16 << 20
_MAX_TOP_K = 10_000


@dataclass(frozen=True, slots=True)
class Item:
    """One searchable item: its id, text, metadata and vector."""

    id: str
    """A text. An int is an error, since `7` and `"7"` are different ids elsewhere but would be the
    same here. In dicts, tuples, tables and files, integers are converted; see `as_items`."""
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Any JSON object; see `idiolect.search.metadata` for values of other types. Filters use its
    top-level strings, numbers, booleans and lists of these."""
    vector: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """(dimensions,). `None` if the encoder of the index computes it, or if it was not requested."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result. A larger score is better under every metric and mode."""

    id: str
    score: float
    text: str
    metadata: Mapping[str, Any]
    highlight: str = ""
    """The best-matching excerpt of the text, with matched words marked; empty unless requested."""


Hits = list[Hit]
"""Results, best first."""


def change(
    item: Item,
    text: str | None,
    metadata: Mapping[str, Any] | None,
    vector: ArrayLike | None,
) -> Item:
    """Return a changed copy of an item; a metadata field set to None is removed.

    Raises:
        InputError: the metadata is not a mapping.
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InputError(
            f"item {item.id!r}: its metadata is a {type(metadata).__name__}, not an object",
            hint="use a dict of field names and values",
        )
    fields = {**item.metadata, **(metadata or {})}
    removed = {name for name, value in (metadata or {}).items() if value is None}
    return Item(
        item.id,
        item.text if text is None else text,
        {name: value for name, value in fields.items() if name not in removed},
        item.vector if vector is None else np.asarray(vector),
    )


def distinct(ids: Iterable[str]) -> list[str]:
    """Return the distinct ids, in order of first occurrence.

    Raises:
        InputError: `ids` is a single string, or an id is not valid.
    """
    if isinstance(ids, str):
        raise InputError(f"ids is the string {ids!r}", hint="give a list of ids")
    return list(dict.fromkeys(check_name(id, "id") for id in iterate(ids, "ids", "a list of ids")))


def check_name(name: str, what: str) -> str:
    """Return an id or a namespace if it is valid.

    Raises:
        InputError: it is not a string, too long, not valid Unicode, or has a NUL character.
    """
    if not isinstance(name, str):
        raise InputError(
            f"{what} {name!r} is a {type(name).__name__}, not a string",
            hint="convert it with str()",
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InputError(f"{what} {name!r} is not valid Unicode", hint="clean it first") from None
    if size > _MAX_ID_BYTES:
        raise InputError(f"{what} {name[:40]!r}… has {size} bytes", hint=f"at most {_MAX_ID_BYTES}")
    if "\x00" in name:
        raise InputError(f"{what} {name!r} has a NUL character", hint="clean it first")
    return name


def check_count(top_k: int) -> int:
    """Return the number of results if it is valid; it may exceed the number of items.

    Raises:
        InputError: it is not an integer from 1 to 10,000.
    """
    if (
        isinstance(top_k, bool)
        or not isinstance(top_k, int | np.integer)
        or not 1 <= top_k <= _MAX_TOP_K
    ):
        raise InputError(f"top_k is {top_k!r}", hint=f"use 1 to {_MAX_TOP_K:,}")
    return int(top_k)


def check_metric(metric: str) -> None:
    """Validate the name of a metric.

    Raises:
        InputError: the metric is unknown.
    """
    if metric not in get_args(Metric):
        raise InputError(f"unknown metric {metric!r}", hint=f"known: {', '.join(get_args(Metric))}")


def check_deletion(ids: Iterable[str] | None, filter: Mapping[str, Any] | str | None) -> None:
    """Validate the arguments of a deletion.

    Raises:
        InputError: not exactly one of `ids` and `filter` is given.
    """
    if (ids is None) == (filter is None):
        raise InputError(
            "delete needs either ids or a filter", hint="drop() deletes a whole namespace"
        )


def check_query(vector: ArrayLike, dimensions: int, metric: Metric) -> NDArray[np.float32]:
    """Return a query vector as float32 (dimensions,), validated like a stored vector."""
    return _check_vector(vector, "the query", dimensions, metric)


def check_queries(vectors: ArrayLike, dimensions: int, metric: Metric) -> NDArray[np.float32]:
    """Return query vectors as float32 (q, dimensions), each validated like a stored vector.

    Args:
        vectors: (q, dimensions), or (dimensions,) for one.
        dimensions: width of the store's vectors.
        metric: the metric of the store.

    Raises:
        InputError: they are not a matrix, or a row is not valid; the message has its number.
    """
    given = _as_array(vectors)
    if given.dtype.kind not in "fiu" or given.ndim > 2:
        what = f"have the shape {given.shape}" if given.ndim > 2 else "are not a matrix of numbers"
        raise InputError(
            f"the queries {what}", hint=f"pass an array (queries, {dimensions}), one row for each"
        )
    if not given.size:
        return np.empty((0, dimensions), np.float32)
    given = np.atleast_2d(given)
    if given.shape[1] != dimensions:
        _check_vector(given[0], "query 0", dimensions, metric)
    with np.errstate(over="ignore", invalid="ignore"):
        checked = np.ascontiguousarray(given, np.float32)
    for row in _suspects(checked, metric):
        _check_vector(given[row], f"query {row}", dimensions, metric)
    return checked


def check_items(items: Sequence[Item], dimensions: int, metric: Metric) -> NDArray[np.float32]:
    """Validate a batch and return its vectors as one float32 array (n, dimensions).

    Raises:
        InputError: an item is not valid (see `check_item`), an id occurs twice, or a vector is
            missing, has other dimensions, is not finite, or is zero under cosine.
    """
    seen: set[str] = set()
    for item in items:
        if not _is_short_ascii(item):
            check_item(item)
        if item.id in seen:
            raise InputError(
                f"id {item.id!r} occurs twice in one batch",
                hint="keep only one of them",
            )
        seen.add(item.id)
    shape = (dimensions,)
    vectors = np.empty((len(items), dimensions), dtype=np.float32)
    for row, item in enumerate(items):
        given = item.vector
        if given is None:
            raise InputError(f"item {item.id!r} has no vector", hint="encode it first")
        plain = type(given) is np.ndarray and given.dtype == np.float32 and given.shape == shape
        vectors[row] = (
            given if plain else _check_vector(given, f"item {item.id!r}", dimensions, metric)
        )  # the values of plain vectors are checked together
    for row in _suspects(vectors, metric):
        _check_vector(vectors[row], f"item {items[row].id!r}", dimensions, metric)
    return vectors


def check_item(item: Item) -> None:
    """Validate the id and the text of an item.

    Raises:
        InputError: it is not an `Item`; its id is empty or not valid; or its text is not a string,
            over 16 MiB, or not valid Unicode.
    """
    if not isinstance(item, Item):
        raise InputError(
            f"an item is a {type(item).__name__}, not an Item: {repr(item)[:60]}",
            hint="use Item(id, text, metadata); read_items reads files",
        )
    if not check_name(item.id, "id"):
        raise InputError(
            f"the item {str(item.text)[:40]!r} has an empty id", hint="give every item a unique id"
        )
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
    if size > _MAX_TEXT_BYTES:
        raise InputError(
            f"item {item.id!r}: its text has {size:,} bytes",
            hint=f"at most {_MAX_TEXT_BYTES:,}; split it into passages",
        )


def own_vector(item: Item, dimensions: int) -> NDArray[np.float32]:
    """Return the vector of an item as float32 (dimensions,); zero is accepted.

    Raises:
        InputError: it has other dimensions, or is not numeric or not finite.
    """
    return _check_vector(item.vector, f"item {item.id!r}", dimensions, "inner")


def own_width(items: Sequence[Item], dimensions: int | None) -> int:
    """Return the vector width of a new index without an encoder: by default that of its first item.

    Raises:
        InputError: there are no items, or the first one has no vector.
    """
    if dimensions is not None:
        return dimensions
    if not items:
        raise InputError("there are no items", hint="an index without any needs its dimensions")
    check_item(items[0])
    if items[0].vector is None:
        raise InputError(
            f"item {items[0].id!r} has no vector, and there is no encoder",
            hint="give every item a vector, or choose an encoder",
        )
    return int(_as_array(items[0].vector).size)


def _is_short_ascii(item: Item) -> bool:
    """Return whether an item is certainly valid, as most are; others need `check_item`."""
    if type(item) is not Item:
        return False
    id, text = item.id, item.text
    return (
        type(id) is str
        and id.isascii()
        and 0 < len(id) <= _MAX_ID_BYTES
        and "\x00" not in id
        and type(text) is str
        and text.isascii()
        and len(text) <= _MAX_TEXT_BYTES
    )


def _suspects(vectors: NDArray[np.float32], metric: Metric) -> list[int]:
    """Return the rows whose norm is not finite, or zero under cosine."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", vectors, vectors)
    suspects = ~np.isfinite(squares) | ((squares == 0) & (metric == "cosine"))
    return [int(row) for row in np.flatnonzero(suspects)]


def _as_array(vector: ArrayLike | None) -> NDArray[Any]:
    try:
        return np.asarray(vector)
    except (ValueError, TypeError, RuntimeError):  # rows of different lengths; a tensor with grad
        return np.empty(0, dtype=object)


def _check_vector(
    vector: ArrayLike | None, owner: str, dimensions: int, metric: Metric
) -> NDArray[np.float32]:
    given = _as_array(vector)
    if given.dtype.kind not in "fiu":
        raise InputError(f"{owner}: its vector is not numeric", hint="use real numbers")
    if given.shape != (dimensions,):
        shape = f"{given.shape[0]} dimensions" if given.ndim == 1 else f"the shape {given.shape}"
        raise InputError(
            f"{owner}: its vector has {shape}, the store has {dimensions}",
            hint="all vectors of an index have one length; use those of one encoder",
        )
    with np.errstate(over="ignore"):
        checked = given.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(checked))
    if len(bad):
        raise InputError(
            f"{owner}: its vector has {given[bad[0]]} at {bad[0]}", hint="use finite numbers"
        )
    with np.errstate(over="ignore"):
        square = float(checked @ checked)
    if not np.isfinite(square):
        raise InputError(f"{owner}: its norm overflows float32", hint="scale it down")
    if metric == "cosine" and square == 0:
        raise InputError(
            f"{owner}: its vector is zero, so its cosine is undefined",
            hint="was its text empty?",
        )
    return checked
