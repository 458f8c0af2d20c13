"""Find the data files of a folder, and inspect the first records of each.

Files that are parts of a whole, such as `part-000.parquet` and `part-001.parquet`, become one
`DataFile`, and so do the texts of a subfolder.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.text.records import (
    DEFAULT_LIMIT,
    file_type,
    has_fields,
    is_readable,
    read_documents,
    read_records,
)

__all__ = ["DESCRIBES", "DataFile", "find_data_files"]

DESCRIBES = "describes the data"
"""The reason for ignoring a file such as a readme or a licence."""

_SAMPLE = 1000  # records
_BEGINNING = 1 << 16  # bytes
_MAXIMUM_FILES = 2000
_ALIKE = 4  # files with the same problem are reported as one from this number on
_TABLES = {
    ".jsonl": "JSON Lines",
    ".ndjson": "JSON Lines",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
}
_JSON_LINES = "holds one record a line: rename it to .jsonl"
_ABOUT = re.compile(
    r"(readme|license|licence|copying|notice|description|changelog|sha256sums)\b", re.I
)
_MODEL = ("config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model")
_HINTS = {
    ".json": "one JSON document: write one record a line, as JSON Lines (.jsonl)",
    ".zip": "an archive: unpack it",
    ".tar": "an archive: unpack it",
    ".tgz": "an archive: unpack it",
    ".xlsx": "a spreadsheet: export it as CSV",
    ".xls": "a spreadsheet: export it as CSV",
    ".pdf": "a PDF: extract its text",
    ".html": "HTML: extract its text",
    ".xml": "XML, but not of TREC: extract its records",
}


@dataclass(frozen=True)
class DataFile:
    """A file, or several that are parts of a whole."""

    name: str
    """As in the configuration: relative to the folder; a glob for parts, with `/` for a folder."""
    paths: tuple[Path, ...]
    format: str
    """For display: `CSV`, `TREC topics`, `text` …; empty if unknown."""
    records: tuple[Mapping[str, Any], ...] = ()
    """The first thousand records; of a text, its lines, as the field `line`."""
    problem: str = ""
    """Why it cannot be used; empty if it can."""

    @property
    def is_table(self) -> bool:
        """Whether its records have named fields."""
        return self.format in _TABLES.values()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the fields, in order of appearance."""
        return tuple(dict.fromkeys(str(name) for record in self.records for name in record))

    @cached_property
    def size(self) -> int:
        """Size in bytes."""
        return sum(path.stat().st_size for path in self.paths)

    def values(self, column: str) -> list[Any]:
        """Return the non-empty values of a column."""
        values = (record.get(column) for record in self.records)
        return [value for value in values if value is not None and value != ""]

    def is_unique(self, column: str) -> bool:
        """Return whether all records have different values."""
        values = self.values(column)
        return len(values) == len(self.records) and len({str(v) for v in values}) == len(values)

    def words(self, column: str) -> float:
        """Return the mean number of words; 0 for a column without text."""
        texts = [value for value in self.values(column) if isinstance(value, str)]
        texts = [text for text in texts if any(letter.isalpha() for letter in text)]
        return sum(len(text.split()) for text in texts) / len(texts) if texts else 0.0

    def described(self) -> str:
        """Return the format, the number of inspected records, and the columns."""
        if not self.format:
            return f"{len(self.paths)} files" if len(self.paths) > 1 else "not looked at"
        number = len(self.records)
        more = "the first " if number == _SAMPLE else ""
        unit = "record" if self.is_table else "line"
        parts = [self.format]
        if len(self.paths) > 1:
            parts.append(f"{len(self.paths)} files")
        if number:
            parts.append(f"looked at {more}{number:,} {unit}{'' if number == 1 else 's'}")
        if self.is_table and self.columns:
            parts.append(f"columns: {', '.join(_short(name) for name in self.columns[:12])}")
        return "; ".join(parts)


def find_data_files(folder: Path) -> list[DataFile]:
    """Inspect all files of a folder and its subfolders, except models, runs and hidden files.

    Raises:
        InputError: There are too many files.
    """
    paths = list(islice(_walk(folder), _MAXIMUM_FILES + 1))
    if len(paths) > _MAXIMUM_FILES:
        raise InputError(
            f"{folder} holds more than {_MAXIMUM_FILES:,} files",
            hint="pass the folder that holds only your data, or write idiolect.toml by hand",
        )
    seen = [_look(path, path.relative_to(folder).as_posix()) for path in paths]
    return sorted(_alike(_joined(folder, seen)), key=lambda file: file.name)


def _walk(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield the files of a folder, sorted; links to a parent folder are not followed."""
    above |= {folder.resolve(), *folder.resolve().parents}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")) or path.suffix == ".toml":
            continue
        if not path.is_dir():
            yield path
        elif path.resolve() not in above and not _is_ours(path):
            yield from _walk(path, above)


def _is_ours(folder: Path) -> bool:
    """Return whether a folder is a run, an index or a model instead of data."""
    return any((folder / name).exists() for name in ("manifest.json", *_MODEL))


def _look(path: Path, name: str) -> DataFile:
    if _ABOUT.match(path.name) or file_type(path) in (".md", ".rst"):
        return DataFile(name, (path,), "", problem=DESCRIBES)
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode("utf-8", "backslashreplace").decode()
        return DataFile(
            shown,
            (path,),
            "",
            problem="its name is not UTF-8 in this locale: rename it, or set PYTHONUTF8=1",
        )
    try:
        return _table(path, name) if has_fields(path) else _text(path, name)
    except InputError as error:
        known = _TABLES.get(file_type(path), "")
        return DataFile(name, (path,), known, problem=f"cannot be read: {error.message}")
    except (OSError, EOFError, zlib.error) as error:
        return DataFile(name, (path,), "", problem=f"cannot be read: {error}")


def _table(path: Path, name: str) -> DataFile:
    skipped = Counter[str]()
    records = tuple(islice(read_records(path, skipped), _SAMPLE))
    file = DataFile(name, (path,), _TABLES[file_type(path)], records)
    if not records:
        reasons = ", ".join(f"{count} {why}" for why, count in skipped.items())
        none = f"has no record that can be read (skipped: {reasons})"
        return replace(file, problem=none if reasons else "is empty")
    first = "\t".join(file.columns)
    if file.format == "TSV" and _trec(first, [first]):
        hint = "lines without names of columns, as in TREC qrels: name it .txt instead of .tsv"
        return replace(file, problem=hint)
    if file_type(path) in (".csv", ".tsv") and any(_is_data(column) for column in file.columns):
        return replace(
            file, problem="its first line looks like data: write the names of the columns above it"
        )
    return file


def _is_data(cell: str) -> bool:
    """Return whether a cell of the first line is data rather than a column name."""
    return len(cell) > 60 or len(cell.split()) > 6 or bool(re.fullmatch(r"-?\d+([.,]\d+)*", cell))


def _text(path: Path, name: str) -> DataFile:
    if is_readable(path):
        documents = read_documents(path, (), "line", DEFAULT_LIMIT, Counter())
        lines = list(islice(documents, _SAMPLE))
        text = "\n".join(lines)
    else:
        opener = gzip.open if path.suffix.lower() == ".gz" else open
        with opener(path, "rb") as file:
            beginning = file.read(_BEGINNING)
        if b"\0" in beginning or file_type(path) in (".zip", ".tar", ".pdf"):
            hint = _HINTS.get(file_type(path), "of a type that cannot be read")
            return DataFile(name, (path,), "", problem=hint)
        text = beginning.decode("utf-8-sig", "replace")
        lines = [line for line in text.splitlines()[:_SAMPLE] if line.strip()]
    if not lines:
        return DataFile(name, (path,), "", problem="is empty")
    records = tuple({"line": line} for line in lines)
    if format := _trec(text, lines):
        return DataFile(name, (path,), format, records if "q" in format else ())
    if not is_readable(path):
        hint = _HINTS.get(file_type(path), _unknown())
        if file_type(path) == ".json" and len(lines) > 1 and all(map(_is_record, lines[:2])):
            hint = _JSON_LINES
        return DataFile(name, (path,), "", problem=hint)
    return DataFile(name, (path,), "text", records)


def _unknown() -> str:
    known = [type_ for type_ in (*_TABLES, ".txt") if is_readable(Path(f"file{type_}"))]
    return f"of an unknown type; known: {', '.join(known)}, each also with .gz, and TREC files"


def _is_record(line: str) -> bool:
    return line.startswith("{") and line.rstrip().endswith("}")


def _trec(text: str, lines: list[str]) -> str:
    """Return the TREC format of a text; empty if it has none."""
    if re.search(r"<doc>.*?<docno>", text, re.I | re.S):
        return "TREC documents"
    if re.search(r"<top>.*?<num>", text, re.I | re.S):
        return "TREC topics"
    rows = [line.split() for line in lines[: -1 if len(lines) > 1 else None]]  # the last may be cut
    graded = all(len(row) == 4 and row[3].lstrip("-").isdigit() for row in rows)
    if graded and len({row[1] for row in rows}) == 1:  # always 0; a log has an item there
        return "TREC qrels"
    if all(len(row) == 6 and row[1].casefold() == "q0" for row in rows):
        return "TREC run"
    return ""


def _alike(files: Iterable[DataFile]) -> list[DataFile]:
    """Combine files with the same problem, type and folder into one entry."""
    groups: dict[tuple[str, ...], list[DataFile]] = {}
    for file in files:
        path = file.paths[0]
        type_ = file_type(path) + ".gz" * (path.suffix.lower() == ".gz")
        parent = file.name.rpartition("/")[0]
        key = (parent, type_, file.problem) if file.problem else (file.name,)
        groups.setdefault(key, []).append(file)
    found: list[DataFile] = []
    for (parent, *rest), group in groups.items():
        if len(group) < _ALIKE:
            found += group
        else:
            paths = tuple(path for file in group for path in file.paths)
            found.append(replace(group[0], name=f"{parent}/*{rest[0]}".lstrip("/"), paths=paths))
    return found


def _joined(folder: Path, files: Iterable[DataFile]) -> list[DataFile]:
    """Join files that are parts of a whole."""
    groups: dict[tuple[str, ...], list[DataFile]] = {}
    for file in files:
        parent, _, last = file.name.rpartition("/")
        part = re.sub(r"\d+", "*", re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "*", last))
        whole = file.format == "text" and parent
        key = ("", parent) if whole else (part, parent, file.format, *sorted(file.columns))
        groups.setdefault(key if file.format and not file.problem else (file.name,), []).append(
            file
        )
    found: list[DataFile] = []
    for (part, *rest), group in groups.items():
        name = f"{rest[0]}/{part}".lstrip("/") if rest else part
        if len(group) == 1 or _files_of(folder, name) != [file.paths[0] for file in group]:
            found += group
        else:
            records = tuple(islice((r for file in group for r in file.records), _SAMPLE))
            paths = tuple(file.paths[0] for file in group)
            found.append(replace(group[0], name=name, paths=paths, records=records))
    return found


def _files_of(folder: Path, name: str) -> list[Path]:
    """Return the files that a name in a configuration refers to."""
    if name.endswith("/"):
        return sorted(p for p in (folder / name).rglob("*") if p.is_file() and is_readable(p))
    return sorted(folder.glob(name))


def _short(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:29]}…"
