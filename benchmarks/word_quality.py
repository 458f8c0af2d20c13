"""Compare what word vectors of ours and of gensim know, from the same sentences.

    python benchmarks/word_quality.py CORPUS ... --tests WordSim-353.txt MEN.txt [--seeds 3]
        [--words 2500000] [--results FILE.jsonl]

A corpus is what `Corpus` reads, or a folder of TEI files (`.xml.gz`, as ELTeC's), of which the
paragraphs are read. Both sides have the same vocabulary (words of five occurrences), 100
dimensions, a window of 5, five negatives, subsampling at 1e-3, five epochs and one thread. Prints a
line for each model and seed: Spearman's correlation, or the share of analogies solved, of the
questions whose words are all known; then the means over seeds. With --results, what is in that file
is not trained again. gensim needs to be installed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gensim.models import Word2Vec

from idiolect.text.corpus import Corpus
from idiolect.words.evaluation import evaluate_words
from idiolect.words.word2vec import Word2VecConfig, train_word2vec
from idiolect.words.word_datasets import read_test_set
from idiolect.words.word_stream import EncodedWords, WordCounts, split_words, write_ids
from idiolect.words.word_vectors import WordVectors

OURS: dict[str, dict[str, Any]] = {
    "ours, skip-gram, shared": {},
    "ours, skip-gram, pairs": {"shared_negatives": False},
    "ours, CBOW": {"model": "cbow"},
}
THEIRS: dict[str, dict[str, Any]] = {
    "gensim, skip-gram": {"sg": 1},
    "gensim, CBOW": {"sg": 0, "alpha": 0.05},
}
TEI_PARAGRAPH = "{http://www.tei-c.org/ns/1.0}p"


def documents(sources: list[str]) -> Iterator[str]:
    """Read corpora one after another."""
    for source in sources:
        files = sorted(Path(source).glob("*.xml.gz"))
        for file in files:
            with gzip.open(file) as stream:
                for paragraph in ElementTree.parse(stream).iter(TEI_PARAGRAPH):
                    yield " ".join("".join(paragraph.itertext()).split())
        if not files:
            yield from Corpus(source)


class Sentences:
    """The same sentences for both sides, in memory."""

    def __init__(self, sources: list[str], words: int, folder: Path) -> None:
        counts: Counter[str] = Counter()
        own: dict[str, str] = {}  # each word once in memory
        self.sentences, self.folder, self.total = [], folder, 0
        for text in documents(sources):
            found = [own.setdefault(word, word) for word in split_words(text)]
            counts.update(found)
            self.sentences.append(found)
            self.total += len(found)
            if self.total >= words:
                break
        self.vocabulary = WordCounts.of(counts, 5)

    @cached_property
    def encoded(self) -> EncodedWords:
        """The sentences' ids for our side."""
        texts = (" ".join(sentence) for sentence in self.sentences)
        return write_ids(texts, self.vocabulary.words, self.folder, str.split)

    def ours(self, settings: dict[str, Any], seed: int) -> WordVectors:
        """Train ours."""
        config, known = Word2VecConfig(seed=seed, **settings), self.vocabulary
        made = train_word2vec(self.encoded, known.words, known.counts, config, self.folder)
        (self.folder / "snapshot.json").unlink(missing_ok=True)
        return WordVectors(known.words, made[0])

    def theirs(self, settings: dict[str, Any], seed: int) -> WordVectors:
        """Train gensim's."""
        options = {"vector_size": 100, "sample": 1e-3, "workers": 1, "seed": seed + 1, **settings}
        made = Word2Vec(self.sentences, **options).wv
        return WordVectors(made.index_to_key, made.vectors)


def main() -> None:
    """Train every model with every seed, and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--words", type=int, default=2_500_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    tests = [read_test_set(path) for path in options.tests]
    done = []
    if options.results and options.results.exists():
        done = [json.loads(line) for line in options.results.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as name:
        corpus = Sentences(options.sources, options.words, Path(name))
        known = len(corpus.vocabulary.words)
        print(f"{corpus.total:,} words, {known:,} different ones of five occurrences", flush=True)
        print("model, seed, CPU seconds,", ", ".join(test.name for test in tests), flush=True)
        for seed in range(options.seeds):
            for label, settings in (OURS | THEIRS).items():
                key = {"model": label, "seed": seed, "words": corpus.total, "tests": options.tests}
                found = next((row for row in done if key.items() <= row.items()), None)
                if found is None:
                    began = time.process_time()
                    vectors = (corpus.ours if label in OURS else corpus.theirs)(settings, seed)
                    spent = time.process_time() - began
                    scores = [evaluate_words(vectors, test).score for test in tests]
                    found = {**key, "seconds": spent, "scores": scores}
                    done.append(found)
                    if options.results:
                        with options.results.open("a") as file:
                            file.write(json.dumps(found) + "\n")
                report(label, str(seed), [found["seconds"], *found["scores"]])
        for label in OURS | THEIRS:
            rows = [row for row in done if row["model"] == label and row["words"] == corpus.total]
            columns = zip(*([row["seconds"], *row["scores"]] for row in rows), strict=True)
            report(label, "mean", [statistics.mean(column) for column in columns])


def report(label: str, seed: str, figures: list[float]) -> None:
    """Print a line."""
    print(
        f"{label}, {seed}, {figures[0]:.0f}",
        *(f"{x:.4f}" for x in figures[1:]),
        sep=", ",
        flush=True,
    )


if __name__ == "__main__":
    main()
