"""Sentences with part-of-speech tags, and noun, verb and preposition chunks made from them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from idiolect.errors import InputError
from idiolect.text.files import read_text
from idiolect.text.skipped import Skipped, skip

__all__ = ["TaggedSentence", "chunk_tags", "read_tagged"]

_WORD = re.compile(r"(.+)[_/]([^_/]+)")


@dataclass(frozen=True)
class TaggedSentence:
    """The words of a sentence and a tag for each."""

    words: tuple[str, ...]
    """The words."""
    tags: tuple[str, ...]
    """Their tags."""


def read_tagged(path: Path, skipped: Skipped | None = None) -> list[TaggedSentence]:
    """Read a sentence a line: `The_DT cat_NN`, `The/DT cat/NN`, or JSON with `tokens`, `tags`.

    Args:
        path: The file; of a folder, all `.txt` and `.jsonl` files in it and its subfolders.
        skipped: Counts the lines that are left out, by reason.

    Raises:
        InputError: There is no such file, or no sentence in it.
    """
    if not path.exists():
        raise InputError(f"no such file: {path}", hint="check the path")
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.suffix in (".txt", ".jsonl"))
    left_out = Skipped() if skipped is None else skipped
    found = []
    for file in files:
        for number, line in enumerate(read_text(file).split("\n"), 1):
            if not line.strip():
                continue
            sentence = _from_json(line) if line.lstrip().startswith("{") else _from_words(line)
            if sentence is None:
                skip(left_out, "not every word has a tag", f"{file.name} line {number}")
            else:
                found.append(sentence)
    if not found:
        raise InputError(
            f"{path} has no sentence with tags", hint='one a line, such as "The_DT cat_NN"'
        )
    return found


def _from_words(line: str) -> TaggedSentence | None:
    matches = [_WORD.fullmatch(word) for word in line.split()]
    pairs = [match.groups() for match in matches if match is not None]
    if len(pairs) < len(matches):
        return None
    return TaggedSentence(tuple(word for word, _ in pairs), tuple(tag for _, tag in pairs))


def _from_json(line: str) -> TaggedSentence | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    words, tags = (record.get(name) for name in ("tokens", "tags"))
    lists = isinstance(words, list) and isinstance(tags, list) and 0 < len(words) == len(tags)
    if not lists or not all(isinstance(one, str) and one for one in (*words, *tags)):
        return None
    return TaggedSentence(tuple(words), tuple(tags))


def chunk_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Return chunks of Penn Treebank tags by rule, as `B-NP`, `I-NP`, `B-VP`, …, `O`.

    A noun chunk is determiners, numbers, adjectives and nouns, or a pronoun; a verb chunk is verbs
    with `to` and adverbs between them; a preposition is a chunk of its own. That follows CoNLL-2000
    (Tjong Kim Sang & Buchholz 2000) roughly, without its treebank.

    >>> chunk_tags(["DT", "JJ", "NN", "MD", "VB", "IN", "PRP", "."])
    ('B-NP', 'I-NP', 'I-NP', 'B-VP', 'I-VP', 'B-PP', 'B-NP', 'O')
    """
    found: list[str] = []
    kind_before, nouns = "O", False
    for tag in tags:
        kind = _kind(tag, kind_before)
        # A determiner or pronoun starts a chunk, and so does an adjective or number after a noun.
        starts = tag in ("DT", "PDT", "PRP", "EX", "WP", "PRP$") or (
            nouns and tag.startswith(("JJ", "CD")) and kind == "NP"
        )
        follows = kind == kind_before and kind in ("NP", "VP") and not starts
        found.append("O" if kind == "O" else f"{'I' if follows else 'B'}-{kind}")
        nouns = kind == "NP" and tag.startswith("NN")
        kind_before = kind
    return tuple(found)


def _kind(tag: str, before: str) -> str:
    if tag.startswith(("NN", "JJ", "CD", "DT", "PDT", "PRP", "EX", "WP", "POS", "FW")):
        return "NP"
    if tag.startswith(("VB", "MD", "TO")) or (tag.startswith("RB") and before == "VP"):
        return "VP"
    return "PP" if tag == "IN" else "O"
