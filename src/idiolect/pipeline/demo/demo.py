"""The demo: input files and a configuration for the catalogue of NumPy and SciPy.

Nothing is downloaded or invented: items, judgements, queries and sessions are read from the
installed packages. The general text is Python's own documentation: the reference manual shown by
`help()`, and the docstrings of the standard library. It is about programming as well, so it is
forgotten less than, say, a novel.
"""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from idiolect.pipeline.demo.calls import sessions
from idiolect.pipeline.demo.catalogue import Catalogue, Entry
from idiolect.pipeline.settings import find_base
from idiolect.pipeline.stage_models import is_encoder
from idiolect.text.files import write_atomic
from idiolect.text.hub import locate

__all__ = ["PACKAGES", "general_text", "write_demo"]

PACKAGES = ("numpy", "scipy")
"""The packages of the demo's catalogue."""

_MINIMUM_LENGTH = 200
"""Minimum characters of a standard library docstring to be used as a text."""

_CONFIG = """\
# The catalogue of NumPy {numpy} and SciPy {scipy}: {items} items, read from the installed packages.
base = {base}
out = "run"

[data]
items = "data/items.jsonl"
text = "text"                       # without the title, which is the name to be found
corpus = "data/corpus.jsonl"        # the items' text with their examples
general = "data/general.jsonl"      # Python's own documentation
pairs = "data/pairs.jsonl"          # of items that are in no test
queries = "data/queries.jsonl"      # summaries, removed from the text
qrels = "data/qrels.tsv"
similar = "data/similar.tsv"        # See Also sections, removed from the text
histories = "data/sessions.jsonl"   # the calls of each function

{settings}"""

# Small enough that the whole pipeline, with its controls, takes minutes.
_SETTINGS = """\
[audit]
max_rows = 400

[distill]
contexts = {contexts}
max_length = {snippet}

[pretrain]
steps = {pretrain}
max_length = {sequence}
batch_size = {batch_size}

{encoder}

[evaluate]
windows = {windows}

[recommend]
epochs = 10
"""
_STATIC = """\
[encoder]
layers = 0                          # the mean of a text's embedding rows; reads whole texts

[tune]
steps = 60
dimensions = [64, 128, 256]"""
_ALL_LAYERS = """\
[encoder]
max_length = 128                    # tokens per text; the rest is cut off

[tune]
steps = 60
max_length = 128
dimensions = [32, 64, 128]"""
_LANGUAGE_MODEL = {
    "contexts": 1,
    "snippet": 24,
    "pretrain": 6,
    "sequence": 64,
    "batch_size": 8,
    "encoder": _STATIC,
    "windows": 6,
}
_SMALL_LANGUAGE_MODEL = _LANGUAGE_MODEL | {
    "contexts": 2,
    "snippet": 50,
    "pretrain": 40,
    "windows": 40,
}
_ENCODER = {
    "contexts": 1,
    "snippet": 50,
    "pretrain": 40,
    "sequence": 32,
    "batch_size": 16,
    "encoder": _ALL_LAYERS,
    "windows": 40,
}
_SMALL = 50_000_000
"""Language models below this many bytes get settings for small models, which train faster."""


def write_demo(folder: Path, *, base: str, settings: str | None = None) -> dict[str, int]:
    """Write the demo's data and configuration.

    The folder gets `idiolect.toml`, and under `data` items.jsonl, corpus.jsonl, general.jsonl,
    pairs.jsonl, queries.jsonl, qrels.tsv, similar.tsv and sessions.jsonl. The same releases of the
    packages give identical files.

    Args:
        folder: Output folder; created if missing.
        base: The base model, as in a configuration.
        settings: The other tables of the configuration; by default suited to the base.

    Returns:
        The number of records in each file.

    Raises:
        MissingDependencyError: A package is not installed.
        InputError: The base does not exist.
    """
    settings = settings or _settings(
        base
    )  # first, so that a missing base is reported before any work
    catalogue = Catalogue.read()
    entries = catalogue.entries.values()
    searches = list(catalogue.searches())
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    counts = {
        "items.jsonl": _records(data / "items.jsonl", map(_item, entries)),
        "corpus.jsonl": _records(
            data / "corpus.jsonl", ({"text": entry.document} for entry in entries)
        ),
        "general.jsonl": _records(
            data / "general.jsonl", ({"text": text} for text in general_text())
        ),
        "pairs.jsonl": _records(data / "pairs.jsonl", _pairs(catalogue)),
        "queries.jsonl": _records(
            data / "queries.jsonl", ({"id": one.id, "text": one.summary} for one, _ in searches)
        ),
        "qrels.tsv": _qrels(
            data / "qrels.tsv",
            ((one.id, answer) for one, answers in searches for answer in answers),
        ),
        "similar.tsv": _qrels(
            data / "similar.tsv",
            (
                (name, other)
                for name, others in catalogue.neighbours().items()
                if catalogue.entries[name].tested
                for other in sorted(others)
            ),
        ),
        "sessions.jsonl": _records(
            data / "sessions.jsonl",
            ({"items": items} for items in sessions(PACKAGES, catalogue.objects)),
        ),
    }
    config = _CONFIG.format(
        **{package: version(package) for package in PACKAGES},
        items=counts["items.jsonl"],
        base=json.dumps(base),  # a JSON string is a TOML string
        settings=settings,
    )
    write_atomic(folder / "idiolect.toml", config.encode())
    return counts


def _settings(base: str) -> str:
    """Return settings for a base.

    A published encoder is used with all its layers. Of a language model, only the embedding rows
    are used: they encode whole texts at a fraction of the cost.
    """
    found = find_base(base, Path())
    if is_encoder(found):
        return _SETTINGS.format(**_ENCODER)
    path = locate(found, ("*.safetensors", "*.json"))
    files = path.rglob("*") if path.is_dir() else [path]
    small = sum(file.stat().st_size for file in files if file.is_file()) < _SMALL
    return _SETTINGS.format(**(_SMALL_LANGUAGE_MODEL if small else _LANGUAGE_MODEL))


def general_text() -> list[str]:
    """Return the topics of Python's reference manual and the standard library's docstrings."""
    texts = dict.fromkeys(import_module("pydoc_data.topics").topics.values())
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text and len(text) >= _MINIMUM_LENGTH:
                texts[text] = None
    return list(texts)


def _item(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "title": entry.id,
        "text": entry.text,
        "metadata": {
            "package": entry.id.partition(".")[0],
            "module": entry.id.rpartition(".")[0],
            "kind": entry.kind,
            "aliases": list(entry.aliases),
        },
    }


def _pairs(catalogue: Catalogue) -> Iterator[dict[str, str]]:
    """Yield pairs of summary and item, and of related items, without those used in tests."""
    free = [entry for entry in catalogue.entries.values() if not entry.tested]
    for entry in free:
        yield {"query": entry.summary, "document_id": entry.id}
    for entry in free:
        for other in entry.related:
            if not catalogue.entries[other].tested:
                yield {"query": entry.text, "document_id": other}


def _records(path: Path, records: Iterable[dict[str, Any]]) -> int:
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_atomic(path, "".join(lines).encode())
    return len(lines)


def _qrels(path: Path, pairs: Iterable[tuple[str, str]]) -> int:
    """Write judgements as a BEIR table."""
    lines = [f"{query}\t{item}\t1\n" for query, item in pairs]
    write_atomic(path, "".join(["query-id\tcorpus-id\tscore\n", *lines]).encode())
    return len(lines)
