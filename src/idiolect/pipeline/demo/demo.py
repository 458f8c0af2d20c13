"""The demo: the catalogue of NumPy and SciPy in the files a run reads, and a run's configuration.

Nothing is fetched and nothing is made up: items, judgements, queries and sessions are read from the
packages that are installed. The general text is Python's own documentation, which is on any machine
too: the reference manual that `help()` shows, and the docstrings of the standard library. It is
about programming as well, so what is forgotten of it is less than of a novel.
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
from idiolect.pipeline.stages import is_encoder
from idiolect.text.files import write_atomic

__all__ = ["PACKAGES", "general_text", "write_demo"]

PACKAGES = ("numpy", "scipy")
"""What the demo's catalogue is read from."""

_SHORTEST = 200
"""Characters that a docstring of the standard library has at least, to be a text."""

_CONFIG = """\
# The catalogue of NumPy {numpy} and SciPy {scipy}: {items} items, read from the installed packages.
base = {base}
out = "run"

[data]
items = "data/items.jsonl"
text = "text"                       # without the title, which is the name to be found
corpus = "data/corpus.jsonl"        # the items' text with their examples
general = "data/general.jsonl"      # Python's own documentation
pairs = "data/pairs.jsonl"          # of items that no test asks about
queries = "data/queries.jsonl"      # summaries, taken out of the text
judgements = "data/judgements.tsv"
similar = "data/similar.tsv"        # See Also, taken out as well

{settings}"""

# Little of everything: with its controls the whole road is walked in minutes.
_SETTINGS = """\
[audit]
rows = 400

[distill]
contexts = {contexts}

[adapt]
steps = {adapt}
length = {practised}
batch = {batch}

[encoder]
length = {length}                         # of a text, its first tokens are read

[tune]
steps = {tune}
length = {read}
dimensions = [32, 64, 128]

[evaluate]
windows = 40
"""
_PLAIN = {
    "contexts": 2,
    "adapt": 40,
    "practised": 64,
    "batch": 8,
    "length": 48,
    "tune": 90,
    "read": 40,
}
_ENCODER = {
    "contexts": 1,
    "adapt": 40,
    "practised": 32,
    "batch": 16,
    "length": 32,
    "tune": 25,
    "read": 32,
}


def write_demo(folder: Path, *, base: str, settings: str | None = None) -> dict[str, int]:
    """Write the demo's data and configuration.

    The folder gets `idiolect.toml`, and under `data` items.jsonl, corpus.jsonl, general.jsonl,
    pairs.jsonl, queries.jsonl, judgements.tsv, similar.tsv and sessions.jsonl. With the same
    releases installed the files are the same, byte for byte.

    Args:
        folder: where to; made if it is not there.
        base: the model to adapt, as a configuration names it.
        settings: the other tables of the configuration; by default ones that fit the base.

    Returns:
        How many records each file has.

    Raises:
        MissingDependencyError: a package is not installed.
        InputError: there is no such base.
    """
    settings = settings or _settings(base)  # first: a base that is not there is told before work
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
        "judgements.tsv": _grades(
            data / "judgements.tsv",
            ((one.id, answer) for one, answers in searches for answer in answers),
        ),
        "similar.tsv": _grades(
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
    """An encoder needs a nudge, and is larger; a plain model has to become one."""
    return _SETTINGS.format(**(_ENCODER if is_encoder(find_base(base, Path())) else _PLAIN))


def general_text() -> list[str]:
    """Return the topics of Python's reference manual and the standard library's docstrings."""
    texts = dict.fromkeys(import_module("pydoc_data.topics").topics.values())
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text and len(text) >= _SHORTEST:
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
    """Yield the summary of each item with its text, and items that are related, untested ones."""
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


def _grades(path: Path, pairs: Iterable[tuple[str, str]]) -> int:
    """Write judgements in the table that BEIR uses."""
    lines = [f"{query}\t{item}\t1\n" for query, item in pairs]
    write_atomic(path, "".join(["query-id\tcorpus-id\tscore\n", *lines]).encode())
    return len(lines)
