"""The compiled loops against slow NumPy ones that read like word2vec.c."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numba import types
from scipy.stats import chi2

from idiolect.words.huffman import HuffmanCodes
from idiolect.words.random_words import alias_table
from idiolect.words.window_kernels import _add_rows, _dot, _sigmoid, train_windows

WORDS, WIDTH, WINDOW, NEGATIVE = 40, 12, 3, 4
COUNTS = np.arange(WORDS, 0, -1) ** 2
NO_PARTS = (np.zeros(0, np.int32), np.zeros(1, np.int64))
EMPTY_CODES = (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint8))
MASK = 2**64 - 1


class Generator:
    """word2vec's generator, in plain integers."""

    def __init__(self, seed: int, table: tuple[Any, Any]) -> None:
        self.state, (self.thresholds, self.aliases) = seed, table

    def next(self) -> int:
        self.state = (self.state * 25214903917 + 11) & MASK
        return self.state

    def word(self) -> int:
        state = self.next()
        column = (((state >> 16) & 0xFFFFFFFF) * len(self.thresholds)) >> 32
        mixed = ((state ^ (state >> 29)) * 0xBF58476D1CE4E5B9) & MASK
        return column if mixed >> 32 < int(self.thresholds[column]) else int(self.aliases[column])


GRID = np.linspace(-6, 6, 1001)
TABLE = 1 / (1 + np.exp(-GRID))


def sigmoid(score: float) -> float:
    """The sigmoid in a table of 1,000 steps, interpolated in float64."""
    return float(score > 0) if abs(score) > 6 else float(np.interp(score, GRID, TABLE))


def reference(
    sentences: list[list[int]],
    vectors: Any,
    output: Any,
    table: Any,
    codes: HuffmanCodes,
    rates: tuple[float, float],
    seed: int,
    *,
    cbow: bool,
    negative: int,
    divide: bool,
) -> float:
    """Train in float64, one prediction after another; return the cost."""
    random = Generator(seed, table)
    total, read, cost = sum(map(len, sentences)), 0, 0.0
    for sentence in sentences:
        rate = rates[0] + (rates[1] - rates[0]) * read / total
        read += len(sentence)
        for place, word in enumerate(sentence):
            reach = WINDOW - random.next() % WINDOW
            near = [
                sentence[i]
                for i in range(max(0, place - reach), min(len(sentence), place + reach + 1))
                if i != place
            ]
            for group in [near] if cbow and near else [[one] for one in near]:
                hidden = np.mean([vectors[one] for one in group], axis=0)
                step = np.zeros(WIDTH)
                if negative:
                    rows = [(word, 1)]
                    rows += [(one, 0) for one in (random.word() for _ in range(negative))]
                    rows = rows[:1] + [row for row in rows[1:] if row[0] != word]
                else:
                    path = range(codes.starts[word], codes.starts[word + 1])
                    rows = [(int(codes.nodes[i]), 1 - int(codes.bits[i])) for i in path]
                for row, label in rows:
                    score = float(hidden @ output[row])
                    cost += math.log1p(math.exp(-score if label else score))
                    if not negative and abs(score) >= 6:
                        continue
                    error = (label - sigmoid(score)) * rate
                    step += error * output[row]
                    output[row] += error * hidden
                for one in group:
                    vectors[one] += step / (len(group) if divide else 1)
    return cost


def _sentences(count: int) -> list[list[int]]:
    random = np.random.default_rng(5)
    return [
        random.choice(WORDS, int(random.integers(2, 12)), p=COUNTS / COUNTS.sum()).tolist()
        for _ in range(count)
    ]


def _start() -> tuple[Any, Any]:
    random = np.random.default_rng(1)
    vectors = (random.random((WORDS, WIDTH)) - 0.5).astype(np.float32)
    return vectors, (random.random((WORDS, WIDTH)) - 0.5).astype(np.float32)


RATES, SEED = (0.025, 0.01), 12345


def _flat(sentences: list[list[int]]) -> tuple[Any, Any]:
    ids = np.array([word for sentence in sentences for word in sentence], np.int32)
    return ids, np.cumsum([0, *map(len, sentences)]).astype(np.int64)


@pytest.mark.parametrize("negative", [0, NEGATIVE])
@pytest.mark.parametrize(("cbow", "divide"), [(False, False), (True, False), (True, True)])
def test_pair_mode_equals_a_slow_reference(cbow: bool, negative: int, divide: bool) -> None:
    sentences = _sentences(180 if cbow else 60)
    table, codes = alias_table(COUNTS**0.75), HuffmanCodes.of(COUNTS)
    vectors, output = _start()
    slow = vectors.astype(np.float64), output.astype(np.float64)
    cost, predictions = train_windows(
        *_flat(sentences),
        np.ones(WORDS, np.float32),
        (vectors, output, *NO_PARTS),
        (cbow, True, divide),
        (table, (codes.starts, codes.nodes, codes.bits), negative),
        WINDOW,
        False,
        np.array(RATES, np.float32),
        np.uint64(SEED),
    )
    assert predictions >= 1000
    options = {"cbow": cbow, "negative": negative, "divide": divide}
    wanted = reference(sentences, *slow, table, codes, RATES, SEED, **options)  # type: ignore[arg-type]
    for fast, exact in zip((vectors, output), slow, strict=True):
        np.testing.assert_allclose(fast, exact, rtol=0, atol=1e-6)
    assert cost == pytest.approx(wanted, rel=1e-5)


def test_shared_mode_reads_a_window_before_it_writes() -> None:
    table = alias_table(COUNTS**0.75)
    vectors, output = _start()
    slow_vectors, slow_output = vectors.astype(np.float64), output.astype(np.float64)
    sentence = [0, 7, 3, 9]
    train_windows(
        *_flat([sentence]),
        np.ones(WORDS, np.float32),
        (vectors, output, *NO_PARTS),
        (False, True, False),
        (table, EMPTY_CODES, NEGATIVE),
        WINDOW,
        True,
        np.array([0.05, 0.05], np.float32),
        np.uint64(SEED),
    )
    random = Generator(SEED, table)
    for place, word in enumerate(sentence):
        reach = WINDOW - random.next() % WINDOW
        targets = [word, *(one for one in (random.word() for _ in range(NEGATIVE)) if one != word)]
        rows = slow_output[targets]
        change = np.zeros_like(rows)
        for other in range(max(0, place - reach), min(4, place + reach + 1)):
            if other != place:
                hidden = slow_vectors[sentence[other]]
                scores = rows @ hidden
                errors = np.array([0.05 * ((i == 0) - sigmoid(s)) for i, s in enumerate(scores)])
                change += np.outer(errors, hidden)
                slow_vectors[sentence[other]] = hidden + errors @ rows
        np.add.at(slow_output, targets, change)
    np.testing.assert_allclose(vectors, slow_vectors, atol=1e-6)
    np.testing.assert_allclose(output, slow_output, atol=1e-6)


def test_subsampled_words_follow_their_probabilities() -> None:
    """With a window of one, every kept word but the first has a prediction from each side."""
    keep = np.array([0.05, 0.2, 0.5, 0.9], np.float32)
    bounds = np.array([0, 40_000], np.int64)
    drawn = []
    for word in range(4):
        rows = np.zeros((4, 2), np.float32)
        _, predictions = train_windows(
            np.full(bounds[1], word, np.int32),
            bounds,
            keep,
            (rows, np.zeros_like(rows), *NO_PARTS),
            (False, True, False),
            (alias_table(np.ones(4)), EMPTY_CODES, 1),
            1,
            False,
            np.array(RATES, np.float32),
            np.uint64(SEED + word),
        )
        drawn.append(predictions / 2 + 1)
    expected = keep * bounds[1]
    spread = expected * (1 - keep)
    assert ((np.array(drawn) - expected) ** 2 / spread).sum() < chi2.ppf(0.9999, 4)


def test_noise_words_follow_their_weights() -> None:
    weights = np.arange(1, 31)[::-1] ** 1.5
    random = Generator(99, alias_table(weights))
    drawn = np.bincount([random.word() for _ in range(60_000)], minlength=30)
    expected = weights / weights.sum() * 60_000
    assert ((drawn - expected) ** 2 / expected).sum() < chi2.ppf(0.9999, 29)


def test_arithmetic_is_float32() -> None:
    """One float64 in the loops halves their speed."""
    row = types.Array(types.float32, 1, "C")
    for function, arguments in ((_sigmoid, (types.float32,)), (_dot, (row, row))):
        overload = function.compile(arguments)
        assert overload is not None
        (signature,) = function.nopython_signatures
        assert signature.return_type == types.float32


def test_rows_are_not_counted() -> None:
    """Counting references to the rows of a matrix takes longer than the arithmetic."""
    row, matrix = (types.Array(types.float32, size, "C") for size in (1, 2))
    _add_rows.compile((row, row, matrix, types.int64))
    codes = _add_rows.inspect_llvm().values()
    assert codes
    assert not any("NRT_" in code for code in codes)
