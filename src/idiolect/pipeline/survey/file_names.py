"""What the names of files and folders say, in several languages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idiolect.pipeline.survey.data_files import DataFile

__all__ = ["is_for_training", "is_named", "named_keys", "split_of"]

_SPLITS = ("test", "", "dev", "val", "valid", "validation", "eval", "train", "training")
"""Words for parts of a data set, those to evaluate on first."""
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
    """Return whether a file's name says that it is for a key of `[data]`."""
    return not _words(file.name).isdisjoint(_NAMES[key].split())


def named_keys(file: DataFile) -> list[str]:
    """Return the keys of `[data]` that a file's name speaks of."""
    return [key for key in _NAMES if is_named(file, key)]


def split_of(file: DataFile) -> int:
    """Return the part of a data set that a file is: the smaller, the better to evaluate on."""
    words = _words(file.name)
    return next((n for n, split in enumerate(_SPLITS) if split in words), _SPLITS.index(""))


def is_for_training(file: DataFile) -> bool:
    """Return whether a file's name says that it is for training."""
    return not _words(file.name).isdisjoint(("train", "training", "pairs", "clicks"))


def _words(name: str) -> set[str]:
    """Return the words of a path, in lower case.

    >>> sorted(_words("qrels/test-Set2.tsv.gz"))
    ['gz', 'qrels', 'set', 'test', 'tsv']
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return {word.casefold() for word in re.findall(r"[^\W\d_]+", spaced)}
