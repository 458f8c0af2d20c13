"""Shared by the scripts that prepare the examples: general text of books, and record files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["EVERY", "general", "write"]

MEDICAL_BOOKS = {"anatomy-physiology", "microbiology"}
EVERY = 4
"""Long collections are sampled: one text in this many is used."""


def general(data: Path) -> Iterator[dict[str, str]]:
    """Yield some modules of the OpenStax books that are not medical."""
    for path in sorted((data / "openstax" / "text").glob("*.txt.gz")):
        if path.name.removesuffix(".txt.gz") not in MEDICAL_BOOKS:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                modules = file.read().split("\n\n")[::EVERY]
            yield from ({"text": text} for text in modules if text.strip())


def write(path: Path, records: Iterable[object]) -> None:
    """Write one record per line."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines):,} records")
