"""Compare what two runs wrote: by bytes, but for times; an index by what it holds and finds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from idiolect.search.store.store import Store

__all__ = ["differences"]

_TIMES = re.compile(r"seconds|per_second")
"""Names of values that differ from run to run."""
_NOT_COMPARED = {".lock", "log.txt", "outputs.json", "report.html"}
"""The number of a process, what was printed, the times and hashes of files that are compared
themselves, and a page that says how long stages took."""


def differences(whole: Path, killed: Path) -> list[str]:
    """Return a line for each difference between two folders in which a command ran."""
    wanted, found = _files(whole), _files(killed)
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"{name} is left over" for name in sorted(found.keys() - wanted.keys())]
    index = next((path.parent for path in wanted.values() if path.name == "ledger.db"), None)
    for name in sorted(wanted.keys() & found.keys()):
        if index is not None and wanted[name].is_relative_to(index):
            continue
        if not _equal(wanted[name], found[name]):
            problems.append(f"{name} differs")
    if index is not None:
        problems += _of_indexes(index, killed / index.relative_to(whole))
    return problems


def _files(folder: Path) -> dict[str, Path]:
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def _equal(one: Path, other: Path) -> bool:
    if one.name in _NOT_COMPARED or one.read_bytes() == other.read_bytes():
        return True
    if one.suffix not in (".json", ".jsonl"):
        return False
    return _records(one) == _records(other)


def _records(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    return [_without_times(json.loads(line)) for line in lines]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("changed"), list):
            return None  # the record of a file, which is compared itself
        return {k: _without_times(v) for k, v in value.items() if not _TIMES.search(k)}
    if isinstance(value, list):
        return [_without_times(part) for part in value]
    return value


def _of_indexes(one: Path, other: Path) -> list[str]:
    with Store.open(one) as wanted, Store.open(other) as found:
        problems = [f"the index is damaged: {line}" for line in found.verify()]
        items = [{item.id: item for item in s.items(vectors=True)} for s in (wanted, found)]
        if items[0] != items[1]:
            problems.append("the index has other items")
        elif any(
            item.vector.tobytes() != items[1][id].vector.tobytes() for id, item in items[0].items()
        ):
            problems.append("the index has other vectors")
        missed = 0
        for query in np.random.default_rng(0).standard_normal((20, wanted.dimensions)):
            hits = [
                {hit.id for hit in s.query(query.astype(np.float32), 10)} for s in (wanted, found)
            ]
            missed += len(hits[0] - hits[1])
        if missed > 4:  # of 200; the order of insertions decides about the last ones
            problems.append(f"the index misses {missed} of 200 hits")
        word = next(iter(items[0].values())).text.split()[0]
        lexical = [
            sorted((hit.id, hit.score) for hit in store.match(word, len(items[0])))
            for store in (wanted, found)
        ]
        if lexical[0] != lexical[1]:
            problems.append("the index finds other items by words")
    return problems
