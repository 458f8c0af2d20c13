"""Compare GloVe with its algorithm in C, in doubles: seconds of an epoch, and the loss.

    python benchmarks/glove.py CORPUS [--words 500000] [--epochs 5] [--dimensions 100]

Both sides fit the same pairs in the same order from the same start, with one thread. The C loop is
written here from the published algorithm (it is not the authors' file) and compiled with the
authors' flags; gcc needs to be installed. Time is processor time, in alternation.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from idiolect.text.corpus import Corpus
from idiolect.words.cooccurrences import count_pairs
from idiolect.words.glove import GloveConfig, _State
from idiolect.words.word_stream import WordCounts, count_words, write_ids
from record import figure

C = r"""
#include <math.h>
typedef struct { int first, second; double count; } Pair;
static double clip(double x) { return x > 100 ? 100 : x < -100 ? -100 : x; }
/* A row has its bias at the end; contexts follow the words. */
double fit(Pair *pairs, long n, double *rows, double *squares, long size, int width,
           double rate, double x_max, double exponent) {
  double loss = 0, one[width], two[width];
  for (long at = 0; at < n; at++) {
    Pair p = pairs[at];
    long i = (long)p.first * (width + 1), j = (p.second + size) * (width + 1);
    double error = 0;
    for (int k = 0; k < width; k++) error += rows[i + k] * rows[j + k];
    error += rows[i + width] + rows[j + width] - log(p.count);
    double weighted = p.count > x_max ? error : pow(p.count / x_max, exponent) * error;
    loss += 0.5 * weighted * error;
    for (int k = 0; k < width; k++) {
      double a = clip(weighted * rows[j + k]) * rate, b = clip(weighted * rows[i + k]) * rate;
      one[k] = a / sqrt(squares[i + k]);
      two[k] = b / sqrt(squares[j + k]);
      squares[i + k] += a * a;
      squares[j + k] += b * b;
    }
    for (int k = 0; k < width; k++) { rows[i + k] -= one[k]; rows[j + k] -= two[k]; }
    weighted = clip(weighted);
    rows[i + width] -= weighted / sqrt(squares[i + width]);
    rows[j + width] -= weighted / sqrt(squares[j + width]);
    squares[i + width] += weighted * weighted;
    squares[j + width] += weighted * weighted;
  }
  return loss;
}
"""
FLAGS = ["-Ofast", "-march=native", "-funroll-loops", "-shared", "-fPIC"]


def first_texts(source: str, words: int) -> list[str]:
    """Read texts of about so many words."""
    texts, total = [], 0
    for text in Corpus(source):
        texts.append(text)
        total += text.count(" ") + 1
        if total >= words:
            break
    return texts


def main() -> None:
    """Print a line for each epoch, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--words", type=int, default=500_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--dimensions", type=int, default=100)
    options = parser.parse_args()
    texts = first_texts(options.source, options.words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "fit.c").write_text(C)
        subprocess.run(
            ["gcc", *FLAGS, "-o", folder / "fit.so", folder / "fit.c", "-lm"], check=True
        )
        fit = ctypes.CDLL(str(folder / "fit.so")).fit
        fit.restype = ctypes.c_double
        vocabulary = WordCounts.of(count_words(texts), 5)
        encoded = write_ids(texts, vocabulary.words, folder)
        pairs = np.array(count_pairs(encoded, folder, window=15, memory_mb=512, seed=0))
        config = GloveConfig(dimensions=options.dimensions)
        size, width = len(vocabulary.words), config.dimensions
        state = _State(size, config)
        rows = np.concatenate([state.rows, state.biases[:, :, None]], 2).astype(np.float64)
        squares = np.ones_like(rows)
        settings = (config.learning_rate, config.x_max, config.exponent)

        def theirs() -> float:
            pointers = (ctypes.c_void_p(array.ctypes.data) for array in (rows, squares))
            numbers = (ctypes.c_long(size), ctypes.c_int(width), *map(ctypes.c_double, settings))
            start = ctypes.c_void_p(pairs.ctypes.data)
            return float(fit(start, ctypes.c_long(len(pairs)), *pointers, *numbers))

        _State(size, config).fit(pairs[:100])  # compiles
        print(f"{len(pairs):,} pairs of {size:,} words")
        times = []
        for epoch in range(options.epochs):
            began = time.process_time()
            own = sum(state.fit(pairs[at : at + 200_000]) for at in range(0, len(pairs), 200_000))
            middle = time.process_time()
            other = theirs()
            times.append((middle - began, time.process_time() - middle))
            losses = f"loss {own / len(pairs):.6f} and {other / len(pairs):.6f}"
            print(f"epoch {epoch + 1}: {times[-1][0]:.2f} and {times[-1][1]:.2f} s, {losses}")
        fast, slow = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"median {fast:.2f} and {slow:.2f} CPU-s, ratio {slow / fast:.2f}")
        what = "GloVe, epochs a second, as a multiple of the same algorithm in C"
        figure("words.glove", f"{slow / fast:.1f}", what)


if __name__ == "__main__":
    main()
