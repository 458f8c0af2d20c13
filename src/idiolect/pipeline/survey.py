"""Write a first configuration for a folder of data.

Files and fields are recognized by their names (`items.jsonl`, `products.csv`, `queries.tsv` …).
Keys without a file are written as comments with their descriptions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.settings import DataSettings
from idiolect.text.fields import DOCUMENT_ID, TEXT, TITLE, find_fields
from idiolect.text.records import is_readable, read_records

__all__ = ["Survey", "survey"]

_NAMES = {
    "items": ("items", "products", "catalogue", "catalog", "documents", "corpus"),
    "corpus": ("corpus", "texts", "domain"),
    "general": ("general", "replay", "other"),
    "pairs": ("pairs", "train", "clicks"),
    "queries": ("queries", "searches", "topics"),
    "qrels": ("qrels", "judgements", "judgments", "ratings"),
    "similar": ("similar", "related"),
    "glossary": ("glossary", "terms"),
}
_KEYS = ("base", "out", "seed")
_SAMPLE = 200


@dataclass(frozen=True)
class Survey:
    """A proposed configuration for a folder."""

    text: str
    """The configuration."""
    findings: tuple[str, ...]
    """Descriptions of the files and fields found, one line each."""


def survey(folder: Path, *, base: str) -> Survey:
    """Inspect a folder of data, and propose a configuration for it.

    Args:
        folder: The folder.
        base: The base model.

    Raises:
        InputError: There is no such folder, or no catalogue in it.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}", hint="pass the folder that holds your data")
    paths = sorted(path for path in folder.iterdir() if is_readable(path) or path.is_dir())
    found = {name: _named(paths, names) for name, names in _NAMES.items()}
    items = found["items"] or _only_table(paths, found)
    if items is None or items.is_dir():
        raise InputError(
            f"{folder} holds no catalogue", hint="name it items.jsonl (or .csv, .tsv, .parquet)"
        )
    if found["corpus"] == items:
        found["corpus"] = None
    found["items"] = items
    records = list(islice(read_records(items, Counter()), _SAMPLE))
    if not records:
        raise InputError(f"the catalogue {items} is empty", hint="it needs one record per item")
    fields = _fields(records, items)
    findings = [f"{name}: {path.name}" for name, path in found.items() if path is not None]
    findings += [f"{name}: none found" for name, path in found.items() if path is None]
    findings.append(f"an item's id is in {fields['id']}, its text in {', '.join(fields['text'])}")
    return Survey(_configuration(base, found, fields), tuple(findings))


def _named(paths: Sequence[Path], names: Sequence[str]) -> Path | None:
    stems = {path.name.partition(".")[0].lower(): path for path in reversed(paths)}
    return next((stems[name] for name in names if name in stems), None)


def _only_table(paths: Sequence[Path], found: Mapping[str, Path | None]) -> Path | None:
    """Return the only table that was not recognized as something else, if there is exactly one."""
    rest = [
        path
        for path in paths
        if path.is_file() and ".txt" not in path.suffixes and path not in found.values()
    ]
    return rest[0] if len(rest) == 1 else None


def _fields(records: Sequence[Mapping[str, Any]], path: Path) -> dict[str, Any]:
    """Choose the fields of id, title and text; without a common name, text is the longest field."""
    names = list(dict.fromkeys(name for record in records for name in record))
    identity = next(iter(find_fields(names, DOCUMENT_ID)), None)
    if identity is None:
        identity = next((name for name in names if _all_different(records, name)), None)
    if identity is None:
        raise InputError(
            f"{path} has no field with unique values", hint=f"its fields are {', '.join(names)}"
        )
    titles = [name for name in find_fields(names, TITLE) if _is_text(records, name)]
    text = [name for name in find_fields(names, TEXT) if _is_text(records, name)]
    if not text:
        texts = [name for name in names if name != identity and _is_text(records, name)]
        text = sorted(texts, key=lambda name: -_length(records, name))[:1]
    if not text:
        raise InputError(
            f"{path} has no field with text", hint=f"its fields are {', '.join(names)}"
        )
    title = titles[0] if titles else None
    return {"id": identity, "title": title, "text": tuple(dict.fromkeys((*titles, *text)))}


def _all_different(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [record.get(name) for record in records]
    return None not in values and len({str(value) for value in values}) == len(values)


def _is_text(records: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(isinstance(value := record.get(name), str) and value.strip() for record in records)


def _length(records: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(len(str(record.get(name) or "")) for record in records)


def _configuration(base: str, found: Mapping[str, Path | None], fields: Mapping[str, Any]) -> str:
    lines = [
        "# Each key is described above it; keys in comments show their defaults.",
        "",
    ]
    lines += _lines(PipelineConfig, {"base": base}, _KEYS)
    given: dict[str, Any] = {
        name: f"{path.name}/" if path.is_dir() else path.name
        for name, path in found.items()
        if path is not None
    }
    default = DataSettings(items="items")
    for name, value in fields.items():
        if value is not None and value != getattr(default, name):
            given[name] = value
    lines += ["", "[data]", *_lines(DataSettings, given, tuple(DataSettings.model_fields))]
    for table, field in PipelineConfig.model_fields.items():
        kind: Any = field.annotation
        if table in ("data", *_KEYS):
            continue
        lines += ["", f"[{table}]", *_lines(kind, {}, tuple(kind.model_fields))]
    return "\n".join(lines) + "\n"


def _lines(kind: Any, given: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    lines = []
    for name in names:
        field = kind.model_fields[name]
        value = given.get(name, field.default)
        comment = " ".join((field.description or "").split())
        empty = value is None or value == ()
        lines.append(f"# {comment}")
        lines.append(f"{'' if name in given else '# '}{name} = {_toml('' if empty else value)}")
    return lines


def _toml(value: Any) -> str:
    # JSON's strings, numbers, lists and booleans are valid TOML.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
