"""Compare the index of words with comparing all of them: milliseconds a query, and recall at 10.

    python benchmarks/similar_words.py VECTORS [--words 1000000] [--queries 200] [--folder F]

If the file has fewer words, they are repeated, each time with noise of half a vector's length, so
that a word has near neighbours of its own and of its copies. The sides take turns of 20 queries,
one after another, with one thread. Building the index takes 0.3 ms a word and core; with --folder
it is kept for the next time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from idiolect.search.word_index import WordIndex
from idiolect.words.word_vectors import WordVectors
from record import figure

NOISE = 0.5
TURN = 20


def enlarge(vectors: WordVectors, size: int) -> WordVectors:
    """Repeat the words, with noise, up to a number."""
    generator = np.random.default_rng(0)
    directions, width = vectors.directions, vectors.dimensions
    rows, words = [directions], list(vectors.words)
    for copy in range(1, -(-size // len(vectors))):
        noise = generator.standard_normal(directions.shape, np.float32)
        rows.append(directions + noise * np.float32(NOISE / width**0.5))
        words += [f"{word}#{copy}" for word in vectors.words]
    return WordVectors(words[:size], np.concatenate(rows)[:size])


def main() -> None:
    """Print a line for each side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    vectors = enlarge(WordVectors.load(options.vectors), options.words)
    generator = np.random.default_rng(1)
    queries = [vectors.words[row] for row in generator.choice(len(vectors), options.queries)]
    with tempfile.TemporaryDirectory() as scratch:
        began = time.process_time()
        with WordIndex.build(options.folder or Path(scratch) / "index", vectors) as index:
            print(
                f"{len(index):,} words of {vectors.dimensions} dimensions indexed in "
                f"{time.process_time() - began:.0f} CPU-s",
                flush=True,
            )
            sides = vectors.most_similar, index.most_similar
            for side in sides:
                side(queries[0])
            times: tuple[list[float], list[float]] = ([], [])
            shared = 0
            for start in range(0, len(queries), TURN):
                found: tuple[list[set[str]], list[set[str]]] = ([], [])
                for side, spent, own in zip(sides, times, found, strict=True):
                    for query in queries[start : start + TURN]:
                        began = time.perf_counter()
                        own.append({word for word, _ in side(query, 10)})
                        spent.append(1000 * (time.perf_counter() - began))
                shared += sum(len(a & b) for a, b in zip(*found, strict=True))
    all_words, graph = map(statistics.median, times)
    print(f"comparing all words: median {all_words:.2f} ms")
    print(f"index: median {graph:.2f} ms, slowest {max(times[1]):.2f} ms")
    what = f"queries a second of the index of words beside comparing all {len(vectors):,}"
    figure("words.index", f"{all_words / graph:.0f}", what)
    print(f"ratio {all_words / graph:.1f}, recall {shared / len(queries) / 10:.4f}")


if __name__ == "__main__":
    main()
