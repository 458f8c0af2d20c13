"""Read items from files: choose the id field, the text fields and the metadata fields.

All files are read twice. The first pass checks them, so that nothing is written if too many rows
are unreadable, and infers the types of CSV columns. The second pass yields the items.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.search.items import Item
from idiolect.search.own_vectors import OwnVectors
from idiolect.text.fields import (
    DOCUMENT_ID,
    find_fields,
    id_text,
    join_fields,
    shown_names,
    text_fields,
)
from idiolect.text.record_types.column_types import ColumnTypes
from idiolect.text.records import (
    KNOWN_TYPES,
    IdReader,
    has_fields,
    has_text_cells,
    numbered_records,
    unusable,
)
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip, summary
from idiolect.text.suggestions import did_you_mean, similar_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["read_items"]

_LOG = logging.getLogger(__name__)


def read_items(
    sources: str | Path | Sequence[str | Path],
    *,
    id_field: str | None = None,
    fields: Sequence[str] = (),
    metadata: Sequence[str] | None = None,
    also: Sequence[str] = (),
    vectors: str | Path | None = None,
    max_unreadable: float = MAX_UNREADABLE,
    skipped: Counter[str],
) -> Iterator[Item]:
    """Stream items from `.jsonl`, `.json`, `.csv`, `.tsv` and `.parquet` files, also compressed.

    The call checks all files; iterating over its result reads them again.

    Args:
        sources: a file, a folder of such files, or several.
        id_field: the id field; by default the first field with a common name, such as `id`, that is
            not one of `fields`.
        fields: the text fields, joined by line breaks; by default the common names, such as
            `title` and `text`, found in each record.
        metadata: the metadata fields; by default all other fields that are not null, and the fields
            of an object called `metadata`, which may be JSON text. In CSV and TSV files, each
            column has one type, see `idiolect.text.record_types.column_types`.
        also: text fields to store as metadata as well.
        vectors: the field with the vector of a record, or a `.npy` file with a row for each record
            (see `idiolect.search.own_vectors`). A record with a vector needs no text.
        max_unreadable: the share of a file's rows that may be unreadable.
        skipped: incremented by reason for each skipped record; a `Skipped` also keeps places.

    Raises:
        InputError: a source or too many of its rows cannot be read, no record of a file has an id
            or a text field, a vector is not valid, the `.npy` file has another number of rows than
            there are records, or there are no items.
    """
    own = None if vectors is None else OwnVectors(vectors)
    if own is not None and own.in_file:
        max_unreadable = 0  # a skipped record would misalign the rows of the matrix
    reader = _ItemReader(fields, metadata, also, own, max_unreadable)
    found, count = Skipped(), 0
    paths = list(_paths([sources] if isinstance(sources, str | Path) else sources))
    id_fields = {}
    for path in paths:
        id_fields[path] = id_field or reader.find_id(path)
        before = count
        count += sum(1 for _ in reader.items(path, id_fields[path], found, check=True))
        if count == before:
            _LOG.warning("%s has no items", path)
    skipped.update(found)
    if own is not None:
        own.check_end()
    if not count:
        raise InputError(
            f"no items in {', '.join(map(str, paths))}",
            hint=f"skipped: {summary(found)}; the fields are {shown_names(reader.names)}"
            if found
            else "there are no records",
        )
    for name in (*fields, *([id_field] if id_field else ()), *(metadata or ())):
        if name not in reader.names:
            hint = did_you_mean(name, reader.names, "there are")
            _LOG.warning("no record has the field %s; %s", name, hint)
    return (
        item
        for path in paths
        for item in reader.items(path, id_fields[path], Skipped(), check=False)
    )


class _ItemReader:
    """Reads the items of files, all with the same choice of fields."""

    def __init__(
        self,
        fields: Sequence[str],
        metadata: Sequence[str] | None,
        also: Sequence[str],
        vectors: OwnVectors | None,
        max_unreadable: float,
    ) -> None:
        self.names: dict[str, None] = {}
        """The names of all fields, in order of appearance."""
        self._fields = tuple(fields)
        self._metadata = metadata
        self._also = also
        self._vectors = vectors
        self._max_unreadable = max_unreadable
        self._types = ColumnTypes()

    def find_id(self, path: Path) -> str:
        """Return the id field: the first common name in the first record, or else in most records.

        Raises:
            InputError: there is none.
        """
        names: dict[str, None] = {}
        filled = Counter[str]()
        for _, record in self._numbered(path, Skipped()):
            candidates = find_fields(
                [name for name in record if name not in self._fields], DOCUMENT_ID
            )
            if not names and candidates and id_text(record[candidates[0]]) is not None:
                return candidates[0]
            names.update(dict.fromkeys(record))
            filled.update(name for name in candidates if id_text(record[name]) is not None)
        if not names:
            return ""  # an empty file
        if not filled:
            raise _unknown(names, path, "id", "--id")
        return filled.most_common(1)[0][0]

    def items(self, path: Path, id_field: str, skipped: Skipped, *, check: bool) -> Iterator[Item]:
        """Yield the items of a file.

        Args:
            path: the file.
            id_field: its id field.
            skipped: counts records that cannot be converted.
            check: whether to only collect cells for inferring column types, instead of converting
                them.
        """
        has_text = False
        names: dict[str, None] = {}
        id_of = IdReader(path)
        for place, record in self._numbered(path, skipped):
            if check:
                names.update(dict.fromkeys(record))
            place = f"{path.name} {place}"
            vector = None if self._vectors is None else self._vectors.take(record, place)
            chosen = self._fields or text_fields(record)
            has_text = has_text or bool(chosen) or vector is not None
            id, text = id_of(record, id_field), join_fields(record, self._fields)
            if text is None and vector is not None:
                text = ""
            reason = "no id" if id is None else "no field" if text is None else unusable(text)
            if reason == "empty" and vector is not None:
                reason = None
            if id is None or text is None or reason is not None:
                skip(skipped, str(reason), place)
                continue
            kept = self._kept(path, record, id_field, chosen, check=check)
            yield Item(id, text, kept, vector)
        self.names.update(names)
        if names and not has_text:
            raise _unknown(names, path, "text", "--field")

    def _numbered(self, path: Path, skipped: Skipped) -> Iterator[tuple[str, dict[str, Any]]]:
        return numbered_records(path, skipped, max_unreadable=self._max_unreadable)

    def _kept(
        self,
        path: Path,
        record: dict[str, Any],
        id_field: str,
        chosen: Sequence[str],
        *,
        check: bool,
    ) -> dict[str, Any]:
        """Return the metadata of a record, and collect or convert the cells of its columns."""
        if self._metadata is None and (inner := _object(record.get("metadata"))) is not None:
            del record["metadata"]
            record = {**inner, **record}
        others = [
            name
            for name in record
            if name != id_field and (name not in chosen or name in self._also)
        ]
        names = others if self._metadata is None else self._metadata
        values = {name: record[name] for name in names if record.get(name) is not None}
        if not has_text_cells(path):
            return values
        if check:
            for name, cell in values.items():
                self._types.add(name, cell)
            return values
        converted = {name: self._types.convert(name, cell) for name, cell in values.items()}
        return {name: value for name, value in converted.items() if value is not None}


def _object(value: Any) -> dict[str, Any] | None:
    """Return an object or parse it from JSON text (as in a Parquet export of an index), or None."""
    if isinstance(value, str) and value.startswith("{"):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    return value if isinstance(value, dict) else None


def _unknown(names: dict[str, None], path: Path, what: str, option: str) -> InputError:
    return InputError(
        f"{path}: which field holds the {what}? There are {shown_names(names)}",
        hint=f"choose with {option}",
    )


def _paths(sources: Sequence[str | Path]) -> Iterator[Path]:
    for source in map(Path, sources):
        if source.is_dir():
            found = [p for p in sorted(source.rglob("*")) if p.is_file() and has_fields(p)]
            if not found:
                raise InputError(f"no records in {source}", hint=f"supported: {KNOWN_TYPES}")
            yield from found
        elif source.exists():
            yield source
        else:
            hint = similar_path(source) or "check the path"
            raise InputError(f"no such file or folder: {source}", hint=hint)
