"""Compare training word vectors with gensim: words a second, alternating, and peak memory.

    python benchmarks/words.py FOLDER_OR_FILE [--words 1000000] [--threads 1 2] [--rounds 3]

Both sides read the same sentences with the same vocabulary, 100 dimensions, a window of 5, five
negatives and subsampling at 1e-3. Speed is raw words for each second of processor time of all
threads, so that other work on the machine matters less; seconds of the clock stand beside it.
Memory is the peak of a process of its own, which reads the sentences from a file, and what it needs
to import its libraries. gensim needs to be installed.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from idiolect.text.corpus import Corpus
from idiolect.words.train_words import train_words
from idiolect.words.word2vec import Word2VecConfig, train_word2vec
from idiolect.words.word_stream import WordCounts, split_words, write_ids
from record import figure

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "skip-gram, shared negatives": ({}, {"sg": 1}),
    "skip-gram, pair by pair": ({"shared_negatives": False}, {"sg": 1}),
    "CBOW": ({"model": "cbow"}, {"sg": 0}),
    "skip-gram, hierarchical softmax": ({"negative": 0}, {"sg": 1, "hs": 1, "negative": 0}),
}
FIGURES = {
    "skip-gram, shared negatives": "words.shared",
    "skip-gram, pair by pair": "words.pair",
}
GENSIM = {"vector_size": 100, "negative": 5, "sample": 1e-3}


def main() -> None:
    """Print a line for each case and number of threads, then the memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--words", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", choices=["ours", "gensim"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(*peak(options.peak, options.source, options.threads[0]))
        return
    sentences: list[list[str]] = []
    total = 0
    for text in Corpus(options.source):
        if total >= options.words:
            break
        sentences.append(split_words(text))
        total += len(sentences[-1])
    with tempfile.TemporaryDirectory() as name:
        compare_speed(sentences, Path(name), options.threads, options.rounds)
        file = Path(name) / "sentences.txt"
        file.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences if sentence))
        for threads in options.threads:
            compare_memory(file, threads)


def compare_speed(
    sentences: list[list[str]], folder: Path, threads: list[int], rounds: int
) -> None:
    """Train with both sides in turn."""
    from gensim.models import Word2Vec

    vocabulary = WordCounts.of(Counter(word for sentence in sentences for word in sentence), 5)
    texts = (" ".join(sentence) for sentence in sentences)
    encoded = write_ids(texts, vocabulary.words, folder, str.split)
    count = len(encoded)
    print(f"{count:,} words, {len(vocabulary.words):,} different ones")

    def ours(settings: dict[str, Any], workers: int) -> tuple[float, float]:
        config = Word2VecConfig(epochs=1, threads=workers, **settings)
        began = time.process_time(), time.perf_counter()
        train_word2vec(encoded, vocabulary.words, vocabulary.counts, config, folder)
        return time.process_time() - began[0], time.perf_counter() - began[1]

    def theirs(settings: dict[str, Any], workers: int) -> tuple[float, float]:
        model = Word2Vec(**{**GENSIM, **settings}, workers=workers)
        model.build_vocab(sentences)
        began = time.process_time(), time.perf_counter()
        model.train(sentences, total_examples=len(sentences), epochs=1)
        return time.process_time() - began[0], time.perf_counter() - began[1]

    for workers in threads:
        for name, (own, other) in CASES.items():
            ours(own, workers)  # compiles
            runs = [(*ours(own, workers), *theirs(other, workers)) for _ in range(rounds)]
            cpu, wall, their_cpu, their_wall = map(statistics.median, zip(*runs, strict=True))
            print(
                f"{name}, {workers} threads: {count / cpu:,.0f} and {count / their_cpu:,.0f} "
                f"words/CPU-s, ratio {their_cpu / cpu:.2f}; {wall:.2f} and {their_wall:.2f} s of "
                f"the clock, ratio {their_wall / wall:.2f}",
                flush=True,
            )
            if workers == 1 and name in FIGURES:
                size = f"one thread, {count:,} words"
                what = f"{name}: words a second, as a multiple of gensim, {size}"
                figure(FIGURES[name], f"{their_cpu / cpu:.1f}", what)


def compare_memory(file: Path, threads: int) -> None:
    """Print the peaks of both sides, each in a process of its own."""
    sizes = []
    for side in ("ours", "gensim"):
        command = [sys.executable, __file__, str(file), "--threads", str(threads), "--peak", side]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        sizes.append([float(size) for size in done.stdout.split()])
    (imports, own), (their_imports, other) = sizes
    print(
        f"peak memory, {threads} threads: {own:.0f} and {other:.0f} MiB, ratio {own / other:.2f}; "
        f"of these {imports:.0f} and {their_imports:.0f} for imports"
    )


def peak(side: str, file: str, threads: int) -> tuple[float, float]:
    """Train skip-gram from a file; return this process's peaks in MiB before and after."""
    if side == "ours":
        import idiolect.words.window_kernels  # noqa: F401

        before = resident()
        with tempfile.TemporaryDirectory() as folder:
            config = Word2VecConfig(epochs=1, threads=threads)
            train_words(file, Path(folder) / "words.safetensors", config, whitespace=True)
    else:
        from gensim.models import Word2Vec
        from gensim.models.word2vec import LineSentence

        before = resident()
        Word2Vec(LineSentence(file), **GENSIM, sg=1, epochs=1, workers=threads)
    return before, resident()


def resident() -> float:
    """Return the largest resident memory so far; unlike rusage's, it begins at the start."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
