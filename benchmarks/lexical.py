"""Lexical search of languages without spaces: how terms are made, what is found, and how fast.

    python benchmarks/lexical.py FOLDER_WITH_DATA [--languages zh th en] [--copies 40]

The questions of XQuAD (1,190 a language) search its 240 paragraphs. Prints the share of questions
whose paragraph is first, and among the first five, by the terms of the store (pairs or triples of
characters) and by others; then the milliseconds of a question, among the paragraphs and among
`--copies` times as many, whose sentences are shuffled over all paragraphs.

All variants run on plain FTS5 tables in memory, in one process: the median of three rounds, and
one round of eight questions among many.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sqlite3
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from idiolect.search.store.lexical import match_expression
from idiolect.search.store.lexical_terms import index_text, tokenizer
from record import figure

_PLAIN = "porter unicode61 remove_diacritics 2"
_UNSPACED = re.compile("[\u0e00-\u0e7f]|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7ff]")


@dataclass(frozen=True)
class Variant:
    """A way to make terms of texts and of queries."""

    tokenizer: str
    of_text: Callable[[str], str]
    of_query: Callable[[str], str]


def single(text: str) -> str:
    """Return a text with spaces around each character of a script without spaces."""
    return _UNSPACED.sub(lambda one: f" {one[0]} ", text)


def any_of(words: list[str]) -> str:
    """Return the FTS5 expression for any of some phrases."""
    cleaned = (word.replace('"', "").strip() for word in words)
    return " OR ".join(f'"{word}"' for word in dict.fromkeys(cleaned) if word)


def phrases(text: str) -> str:
    """Return the expression for any two neighbouring characters, as phrases of single ones."""
    words = single(text).split()
    return any_of([*words[-1:], *(f"{a} {b}" for a, b in pairwise(words))])


def trigrams(text: str) -> str:
    """Return the expression for any three neighbouring characters."""
    return any_of([text[n : n + 3] for n in range(len(text) - 2)])


OURS = "pairs or triples (the store)"
VARIANTS = {
    "plain FTS5": Variant(_PLAIN, lambda text: text, lambda text: any_of(text.split())),
    "FTS5 trigram": Variant("trigram", lambda text: text, trigrams),
    "characters": Variant(_PLAIN, single, lambda text: any_of(single(text).split())),
    "phrases of two characters": Variant(_PLAIN, single, phrases),
    OURS: Variant(tokenizer("en"), lambda text: index_text(text, "en"), match_expression),
}


def read(folder: Path, language: str) -> tuple[list[str], list[tuple[str, int]]]:
    """Return the paragraphs, and each question with the place of its paragraph."""
    path = folder / "xquad" / f"xquad.{language}.json.gz"
    articles = json.loads(gzip.decompress(path.read_bytes()))["data"]
    paragraphs = [one for article in articles for one in article["paragraphs"]]
    questions = [
        (question["question"], place)
        for place, paragraph in enumerate(paragraphs)
        for question in paragraph["qas"]
    ]
    return [one["context"] for one in paragraphs], questions


def copied(texts: list[str], copies: int) -> list[str]:
    """Return many texts of the same length, of shuffled pieces of 20 characters."""
    pieces = [text[n : n + 20] for text in texts for n in range(0, len(text), 20)]
    rng, size = random.Random(0), len(pieces) // len(texts)
    return ["".join(rng.choices(pieces, k=size)) for _ in range(copies * len(texts))]


def measure(
    variant: Variant, texts: list[str], questions: list[tuple[str, int]], rounds: int
) -> list[str]:
    """Return recall, seconds of indexing, and milliseconds of a question."""
    with sqlite3.connect(":memory:") as db:
        db.execute(f"CREATE VIRTUAL TABLE t USING fts5 (text, tokenize='{variant.tokenizer}')")
        began = time.process_time()
        rows = ((place, variant.of_text(text)) for place, text in enumerate(texts))
        db.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", rows)
        indexing = time.process_time() - began
        seconds = []
        for _ in range(rounds):
            began, first, five = time.process_time(), 0, 0
            for question, place in questions:
                expression = variant.of_query(question)
                found = [
                    row
                    for (row,) in db.execute(
                        "SELECT rowid FROM t WHERE t MATCH ? ORDER BY rank LIMIT 5", (expression,)
                    )
                ]
                first += found[:1] == [place]
                five += place in found
            seconds.append(time.process_time() - began)
    count = len(questions)
    milliseconds = 1000 * statistics.median(seconds) / count
    return [f"{first / count:.3f}", f"{five / count:.3f}", f"{indexing:.2f}", f"{milliseconds:.2f}"]


def main() -> None:
    """Print a table for each language."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--languages", nargs="+", default=["zh", "th", "en"])
    parser.add_argument("--copies", type=int, default=40)
    given = parser.parse_args()
    for language in given.languages:
        texts, questions = read(given.data, language)
        many = [*texts, *copied(texts, given.copies)]
        print(f"\n{language}: {len(texts)} paragraphs, and {len(many):,} texts")
        print("| terms | R@1 | R@5 | indexing s | ms | R@5 of many | indexing s | ms |")
        print("| --- |" + " ---: |" * 7)
        for name, variant in VARIANTS.items():
            few = measure(variant, texts, questions, 3)
            large = measure(variant, many, questions[::150], 1)[1:]
            print(f"| {name} | {' | '.join(few + large)} |", flush=True)
            if name == OURS:
                what = f"XQuAD {language}, word search, recall@5 of the gold passage"
                figure(f"lexical.{language}", f"{100 * float(few[1]):.0f} %", what)


if __name__ == "__main__":
    main()
