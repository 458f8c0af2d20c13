"""Compare training word vectors with gensim: words a second, alternating, one thread or two.

    python benchmarks/words.py FOLDER_OR_FILE [--words 1000000] [--threads 1] [--rounds 3]

Both sides read the same sentences with the same vocabulary, 100 dimensions, a window of 5, five
negatives and subsampling at 1e-3. Speed is raw words for each second of processor time, so that
other work on the machine matters less. gensim needs to be installed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from gensim.models import Word2Vec

from idiolect.text.corpus import Corpus
from idiolect.words.word2vec import Word2VecConfig, train_word2vec
from idiolect.words.word_stream import WordCounts, count_words, split_words, write_ids

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "skip-gram, shared negatives": ({}, {"sg": 1}),
    "skip-gram, pair by pair": ({"shared_negatives": False}, {"sg": 1}),
    "CBOW": ({"model": "cbow"}, {"sg": 0}),
    "skip-gram, hierarchical softmax": ({"negative": 0}, {"sg": 1, "hs": 1, "negative": 0}),
}


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = list(islice(Corpus(options.source), options.words // 10))
    sentences, total = [], 0
    for text in texts:
        if total >= options.words:
            break
        sentences.append(split_words(text))
        total += len(sentences[-1])
    texts = texts[: len(sentences)]
    vocabulary = WordCounts.of(count_words(texts), 5)
    with tempfile.TemporaryDirectory() as folder:
        encoded = write_ids(texts, vocabulary.words, Path(folder))
        count = len(encoded.ids)

        def ours(settings: dict[str, Any]) -> float:
            config = Word2VecConfig(epochs=1, threads=options.threads, **settings)
            began = time.process_time()
            train_word2vec(encoded, vocabulary.words, vocabulary.counts, config, Path(folder))
            return count / (time.process_time() - began)

        def theirs(settings: dict[str, Any]) -> float:
            model = Word2Vec(
                **{"vector_size": 100, "negative": 5, "sample": 1e-3, **settings},
                workers=options.threads,
            )
            model.build_vocab(sentences)
            began = time.process_time()
            model.train(sentences, total_examples=len(sentences), epochs=1)
            return count / (time.process_time() - began)

        for name, (own, other) in CASES.items():
            ours(own)  # compiles
            runs = [(ours(own), theirs(other)) for _ in range(options.rounds)]
            fast, slow = (statistics.median(column) for column in zip(*runs, strict=True))
            print(f"{name}: {fast:,.0f} and {slow:,.0f} words/CPU-s, ratio {fast / slow:.2f}")


if __name__ == "__main__":
    main()
