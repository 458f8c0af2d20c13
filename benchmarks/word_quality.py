"""Compare what word vectors of ours and of gensim know, from the same sentences.

    python benchmarks/word_quality.py CORPUS --tests WordSim-353.txt MEN.txt [--words 2500000]

Both sides have the same vocabulary (words of five occurrences), 100 dimensions, a window of 5, five
negatives, subsampling at 1e-3 and five epochs. Prints a line for each model and seed: Spearman's
correlation, or the share of analogies solved, of the questions whose words are all known. gensim
needs to be installed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gensim.models import Word2Vec

from idiolect.text.corpus import Corpus
from idiolect.words.evaluation import evaluate_words
from idiolect.words.word2vec import Word2VecConfig, train_word2vec
from idiolect.words.word_datasets import read_test_set
from idiolect.words.word_stream import WordCounts, count_words, split_words, write_ids
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


def main() -> None:
    """Train every model with every seed, and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--words", type=int, default=2_500_000)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    tests = [read_test_set(path) for path in options.tests]
    texts, total = [], 0
    for text in Corpus(options.source):
        texts.append(text)
        total += len(split_words(text))
        if total >= options.words:
            break
    vocabulary = WordCounts.of(count_words(texts), 5)
    sentences = [split_words(text) for text in texts]
    print("model, seed, CPU seconds,", ", ".join(test.name for test in tests), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoded = write_ids(texts, vocabulary.words, folder)

        def ours(settings: dict[str, Any], seed: int) -> WordVectors:
            config = Word2VecConfig(seed=seed, **settings)
            made = train_word2vec(encoded, vocabulary.words, vocabulary.counts, config, folder)
            (folder / "snapshot.json").unlink(missing_ok=True)
            return WordVectors(vocabulary.words, made[0])

        def theirs(settings: dict[str, Any], seed: int) -> WordVectors:
            made = Word2Vec(
                sentences, vector_size=100, sample=1e-3, workers=1, seed=seed, **settings
            ).wv
            return WordVectors(made.index_to_key, made.vectors)

        def row(name: str, train: Callable[..., WordVectors], settings: Any, seed: int) -> None:
            began = time.process_time()
            vectors = train(settings, seed)
            spent = time.process_time() - began
            scores = ", ".join(f"{evaluate_words(vectors, test).score:.3f}" for test in tests)
            print(f"{name}, {seed}, {spent:.0f}, {scores}", flush=True)

        for seed in range(options.seeds):
            for label, settings in OURS.items():
                row(label, ours, settings, seed)
            for label, settings in THEIRS.items():
                row(label, theirs, settings, seed + 1)


if __name__ == "__main__":
    main()
