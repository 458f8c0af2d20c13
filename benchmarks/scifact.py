"""SciFact as published: 5,183 abstracts, and claims that cite some of them (Wadden et al. 2020)."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SciFact", "read_scifact"]

_BETWEEN = re.compile(r"""(?<=['"])\s+(?=['"])""")
"""The separator of two quoted sentences."""


@dataclass(frozen=True)
class SciFact:
    """Abstracts, claims, and the abstracts each claim cites."""

    documents: dict[str, str]
    train: dict[str, str]
    validation: dict[str, str]
    cited: dict[str, list[str]]
    """The cited abstracts of each claim, in both splits."""


def read_scifact(folder: Path) -> SciFact:
    """Read the archive in the data folder."""
    with zipfile.ZipFile(folder / "scifact" / "scifact.zip") as archive:

        def rows(name: str) -> list[dict[str, str]]:
            return list(csv.DictReader(io.TextIOWrapper(archive.open(name), "utf-8")))

        documents = {
            row["doc_id"]: f"{row['title']} {_sentences(row['abstract'])}"
            for row in rows("corpus_train.csv")
        }
        claims = {part: rows(f"claims_{part}.csv") for part in ("train", "validation")}
    cited = {
        row["id"]: re.findall(r"\d+", row["cited_doc_ids"])
        for part in claims.values()
        for row in part
    }
    texts = {part: {row["id"]: row["claim"] for row in table} for part, table in claims.items()}
    return SciFact(documents, texts["train"], texts["validation"], cited)


def _sentences(printed: str) -> str:
    """Join the sentences of a printed array of quoted strings."""
    parts = _BETWEEN.split(printed.strip()[1:-1])
    return " ".join(part.strip()[1:-1].replace("\\'", "'").strip() for part in parts)
