"""Interpret the names of files and folders, in several languages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idiolect.pipeline.survey.data_files import DataFile

__all__ = ["is_for_training", "is_named", "named_keys", "split_of"]

_SPLITS = ("test", "", "dev", "val", "valid", "validation", "eval", "train", "training")
"""Words for the splits of a data set, best for evaluation first."""
_NAMES = {
    "items": "items item products product catalogue catalog documents docs corpus passages "
    "articles collection listings inventory artikel produkte katalog produits catalogo productos "
    "prodotti produtos articulos",
    "corpus": "corpus texts text domain",
    "general": "general replay other background wikipedia wikitext books",
    "pairs": "pairs pair train training clicks click matches paare klicks",
    "queries": "queries query searches search topics questions claims suchanfragen anfragen "
    "requetes requêtes consultas",
    "qrels": "qrels qrel judgements judgments judgement judgment relevance labels rated gold gt "
    "bewertungen urteile",
    "similar": "similar related alternatives ähnlich aehnlich",
    "glossary": "glossary terms terminology glossar begriffe",
}


def is_named(file: DataFile, key: str) -> bool:
    """Return whether a file's name indicates a key of `[data]`."""
    return not _words(file.name).isdisjoint(_NAMES[key].split())


def named_keys(file: DataFile) -> list[str]:
    """Return the keys of `[data]` that a file's name indicates."""
    return [key for key in _NAMES if is_named(file, key)]


def split_of(file: DataFile) -> int:
    """Return the split that a file holds; smaller numbers are better for evaluation."""
    words = _words(file.name)
    return next((n for n, split in enumerate(_SPLITS) if split in words), _SPLITS.index(""))


def is_for_training(file: DataFile) -> bool:
    """Return whether a file's name indicates training data."""
    return not _words(file.name).isdisjoint(("train", "training", "pairs", "clicks"))


def _words(name: str) -> set[str]:
    """Return the lower-case words of a path.

    >>> sorted(_words("qrels/test-Set2.tsv.gz"))
    ['gz', 'qrels', 'set', 'test', 'tsv']
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return {word.casefold() for word in re.findall(r"[^\W\d_]+", spaced)}
