"""The inner loops of skip-gram and CBOW, compiled, in float32.

Two orders of the same arithmetic:

- `train_pairs` follows word2vec.c step by step: one prediction, its negatives, one update.
- `train_shared` reads the word in the middle and one set of negatives once for a window, and
  predicts them from all context words: three small matrix products instead of many dot products
  (Ji et al. 2016, "Parallelizing Word2Vec in Shared and Distributed Memory", arXiv 1604.04661).

                       ┌ middle word, label 1 ┐
    context words  ×   │ negative 1,  label 0 │  = scores ─► errors ─► updates of both sides
    (up to 2 window)   └ negative …           ┘

Threads write to the same rows without locks (Hogwild, Recht et al. 2011). The loss is exact: it is
summed in float64 for each prediction that is made.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from idiolect.words.compiled import compiled, kernel
from idiolect.words.random_words import next_random, sample_word, uniform

__all__ = ["train_pairs", "train_shared"]

_LIMIT = np.float32(6)
_PLACES = 1000
_ONE, _ZERO = np.float32(1), np.float32(0)
_GRID = (np.arange(_PLACES + 2, dtype=np.float64) / _PLACES * 2 - 1) * 6
_SIGMOID = (1 / (1 + np.exp(-_GRID))).astype(np.float32)
_SOFTPLUS = np.log1p(np.exp(_GRID)).astype(np.float32)
_TO_PLACE = np.float32(_PLACES / 12)


@compiled(inline="always")
def _sigmoid(score: Any) -> Any:
    """Return the sigmoid to 2e-6, interpolated in a table; 0 or 1 beyond ±6, as in word2vec.c.

    word2vec.c takes the nearest lower place. Its steps of up to .003 would let the last bit of a
    score decide by how much a row moves.
    """
    if score > _LIMIT:
        return _ONE
    if score < -_LIMIT:
        return _ZERO
    place = (score + _LIMIT) * _TO_PLACE
    left = int(place)
    low = _SIGMOID[left]
    return low + (place - np.float32(left)) * (_SIGMOID[left + 1] - low)


@compiled(inline="always")
def _cost(score: Any) -> Any:
    """Return -log sigmoid(-score), interpolated to 1e-5; exact beyond ±6. float64."""
    if score > _LIMIT or score < -_LIMIT:
        value = np.float64(score)
        return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
    place = (score + _LIMIT) * _TO_PLACE
    left = int(place)
    low = _SOFTPLUS[left]
    return np.float64(low + (place - np.float32(left)) * (_SOFTPLUS[left + 1] - low))


@compiled(fastmath={"reassoc", "nsz", "contract"})
def _dot(a: Any, b: Any) -> Any:
    total = _ZERO
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@compiled(fastmath={"contract"})
def _add(target: Any, factor: Any, row: Any) -> None:
    for k in range(len(target)):
        target[k] += factor * row[k]


@compiled(fastmath={"contract"})
def _step(step: Any, row: Any, hidden: Any, error: Any) -> None:
    for k in range(len(step)):
        step[k] += error * row[k]
        row[k] += error * hidden[k]


@compiled(inline="always")
def _subsample(ids: Any, start: Any, end: Any, keep: Any, state: Any, kept: Any) -> Any:
    """Copy the kept words of a sentence; return their number and the generator's state."""
    count = 0
    for place in range(start, end):
        word = ids[place]
        if keep[word] < _ONE:
            state = next_random(state)
            if keep[word] < uniform(state):
                continue
        kept[count] = word
        count += 1
    return count, state


@compiled(inline="always")
def _read_rows(vectors: Any, parts: Any, starts: Any, word: Any, target: Any, factor: Any) -> None:
    """Add a word's row, or the mean of its own row and its n-grams' rows, to a buffer."""
    if len(parts) == 0:
        _add(target, factor, vectors[word])
        return
    first, last = starts[word], starts[word + 1]
    share = factor / np.float32(last - first)
    for part in range(first, last):
        _add(target, share, vectors[parts[part]])


@compiled(inline="always")
def _write_rows(vectors: Any, parts: Any, starts: Any, word: Any, step: Any, factor: Any) -> None:
    """Add a step to a word's row, or, as fastText, undivided to each of its rows."""
    if len(parts) == 0:
        _add(vectors[word], factor, step)
        return
    for part in range(starts[word], starts[word + 1]):
        _add(vectors[parts[part]], factor, step)


@compiled(inline="always")
def _predict_negatives(
    hidden: Any, step: Any, word: Any, output: Any, negative: Any, noise: Any, rate: Any, state: Any
) -> Any:
    """Predict a word against noise words; return the cost and the generator's state."""
    thresholds, aliases = noise
    cost = 0.0
    for sample in range(negative + 1):
        target, label = np.int64(word), _ONE
        if sample:
            state = next_random(state)
            target, label = sample_word(state, thresholds, aliases), _ZERO
            if target == word:
                continue
        row = output[target]
        score = _dot(hidden, row)
        cost += _cost(-score if sample == 0 else score)
        _step(step, row, hidden, (label - _sigmoid(score)) * rate)
    return cost, state


@compiled(inline="always")
def _predict_codes(hidden: Any, step: Any, word: Any, output: Any, codes: Any, rate: Any) -> Any:
    """Predict the turns of a word's Huffman path; return the cost.

    As in word2vec.c, a turn whose score is beyond ±6 is not trained.
    """
    starts, nodes, bits = codes
    cost = 0.0
    for place in range(starts[word], starts[word + 1]):
        row = output[nodes[place]]
        score = _dot(hidden, row)
        cost += _cost(score if bits[place] else -score)
        if score <= -_LIMIT or score >= _LIMIT:
            continue
        _step(step, row, hidden, (_ONE - np.float32(bits[place]) - _sigmoid(score)) * rate)
    return cost


@kernel
def train_pairs(
    ids: Any,
    bounds: Any,
    vectors: Any,
    output: Any,
    keep: Any,
    noise: Any,
    codes: Any,
    parts: Any,
    part_starts: Any,
    window: int,
    negative: int,
    cbow: bool,
    mean: bool,
    divide: bool,
    rates: Any,
    seed: Any,
) -> Any:
    """Train on some sentences, prediction by prediction. Return the summed cost and their number.

    Args:
        ids: The sentences' words, one after another. int32.
        bounds: Where each sentence begins, and the end. int64.
        vectors: Input rows: words, then n-gram buckets. float32, changed in place.
        output: Output rows: words, or inner nodes of the Huffman tree. float32, changed in place.
        keep: Probability of keeping each word. float32.
        noise: The alias table of the noise words.
        codes: Starts, nodes and bits of the Huffman paths; used if `negative` is 0.
        parts: Rows of each word's n-grams, its own first; empty without n-grams.
        part_starts: Where each word's parts begin.
        window: The largest distance of a context word; the actual one is random.
        negative: Number of noise words; 0 for hierarchical softmax.
        cbow: Predict the middle word from all context words, instead of from each.
        mean: CBOW: whether the context is averaged, or summed.
        divide: CBOW: whether the gradient of a mean is divided by the context's size.
        rates: Learning rate at the first and after the last word. float32.
        seed: State of the random generator. uint64.
    """
    width = vectors.shape[1]
    hidden, step = np.zeros(width, np.float32), np.zeros(width, np.float32)
    longest = 0
    for sentence in range(len(bounds) - 1):
        longest = max(longest, bounds[sentence + 1] - bounds[sentence])
    kept = np.empty(longest, np.int32)
    cost, predictions, state = 0.0, 0, seed
    slope = (rates[1] - rates[0]) / np.float32(max(1, bounds[-1] - bounds[0]))
    for sentence in range(len(bounds) - 1):
        rate = rates[0] + slope * np.float32(bounds[sentence] - bounds[0])
        count, state = _subsample(ids, bounds[sentence], bounds[sentence + 1], keep, state, kept)
        for place in range(count):
            state = next_random(state)
            reach = window - np.int64(state % np.uint64(window))
            first: Any = max(0, place - reach)
            last: Any = min(count, place + reach + 1)
            near = last - first - 1
            if near == 0:
                continue
            if cbow:
                share = _ONE / np.float32(near) if mean else _ONE
                hidden[:] = _ZERO
                step[:] = _ZERO
                for other in range(first, last):
                    if other != place:
                        _read_rows(vectors, parts, part_starts, kept[other], hidden, share)
                if negative:
                    spent, state = _predict_negatives(
                        hidden, step, kept[place], output, negative, noise, rate, state
                    )
                else:
                    spent = _predict_codes(hidden, step, kept[place], output, codes, rate)
                cost += spent
                predictions += 1
                for other in range(first, last):
                    if other != place:
                        factor = share if divide else _ONE
                        _write_rows(vectors, parts, part_starts, kept[other], step, factor)
                continue
            for other in range(first, last):
                if other == place:
                    continue
                hidden[:] = _ZERO
                step[:] = _ZERO
                _read_rows(vectors, parts, part_starts, kept[other], hidden, _ONE)
                if negative:
                    spent, state = _predict_negatives(
                        hidden, step, kept[place], output, negative, noise, rate, state
                    )
                else:
                    spent = _predict_codes(hidden, step, kept[place], output, codes, rate)
                cost += spent
                predictions += 1
                _write_rows(vectors, parts, part_starts, kept[other], step, _ONE)
    return cost, predictions


@compiled(fastmath={"reassoc", "nsz", "contract"})
def _three_dots(a: Any, rows: Any, first: Any) -> Any:
    """Return the products of one row with three others, reading the one once."""
    x, y, z = rows[first], rows[first + 1], rows[first + 2]
    p = q = r = _ZERO
    for k in range(len(a)):
        p += a[k] * x[k]
        q += a[k] * y[k]
        r += a[k] * z[k]
    return p, q, r


@compiled(fastmath={"contract"})
def _three_updates(step: Any, hidden: Any, errors: Any, rows: Any, steps: Any, first: Any) -> None:
    e, f, g = errors[first], errors[first + 1], errors[first + 2]
    x, y, z = rows[first], rows[first + 1], rows[first + 2]
    u, v, w = steps[first], steps[first + 1], steps[first + 2]
    for k in range(len(step)):
        step[k] += e * x[k] + f * y[k] + g * z[k]
    for k in range(len(step)):  # apart, because the compiler checks few arrays for overlap
        h = hidden[k]
        u[k] += e * h
        v[k] += f * h
        w[k] += g * h


@kernel
def train_shared(
    ids: Any,
    bounds: Any,
    vectors: Any,
    output: Any,
    keep: Any,
    noise: Any,
    parts: Any,
    part_starts: Any,
    window: int,
    negative: int,
    rates: Any,
    seed: Any,
) -> Any:
    """Train skip-gram with the negatives shared in a window; see `train_pairs` for the arguments.

    All scores of a window are computed before any of its rows changes.
    """
    width = vectors.shape[1]
    padded = (negative + 3) // 3 * 3
    rows = np.zeros((padded, width), np.float32)
    steps = np.zeros((padded, width), np.float32)
    errors = np.zeros(padded, np.float32)
    targets = np.empty(padded, np.int64)
    hidden, step = np.zeros(width, np.float32), np.zeros(width, np.float32)
    longest = 0
    for sentence in range(len(bounds) - 1):
        longest = max(longest, bounds[sentence + 1] - bounds[sentence])
    kept = np.empty(longest, np.int32)
    cost, predictions, state = 0.0, 0, seed
    slope = (rates[1] - rates[0]) / np.float32(max(1, bounds[-1] - bounds[0]))
    for sentence in range(len(bounds) - 1):
        rate = rates[0] + slope * np.float32(bounds[sentence] - bounds[0])
        count, state = _subsample(ids, bounds[sentence], bounds[sentence + 1], keep, state, kept)
        for place in range(count):
            state = next_random(state)
            reach = window - np.int64(state % np.uint64(window))
            first: Any = max(0, place - reach)
            last: Any = min(count, place + reach + 1)
            if last - first == 1:
                continue
            word = np.int64(kept[place])
            targets[0] = word
            used = 1
            for _ in range(negative):
                state = next_random(state)
                target = sample_word(state, noise[0], noise[1])
                if target != word:
                    targets[used] = target
                    used += 1
            blocks = (used + 2) // 3
            for row in range(blocks * 3):
                steps[row, :] = _ZERO
                if row < used:
                    rows[row, :] = output[targets[row]]
                else:
                    rows[row, :] = _ZERO
            for other in range(first, last):
                if other == place:
                    continue
                context = kept[other]
                step[:] = _ZERO
                hidden[:] = _ZERO
                _read_rows(vectors, parts, part_starts, context, hidden, _ONE)
                for block in range(blocks):
                    at = block * 3
                    errors[at], errors[at + 1], errors[at + 2] = _three_dots(hidden, rows, at)
                    for row in range(at, at + 3):
                        score = errors[row]
                        if row >= used:
                            errors[row] = _ZERO
                        elif row == 0:
                            cost += _cost(-score)
                            errors[row] = (_ONE - _sigmoid(score)) * rate
                        else:
                            cost += _cost(score)
                            errors[row] = (_ZERO - _sigmoid(score)) * rate
                    _three_updates(step, hidden, errors, rows, steps, at)
                predictions += 1
                _write_rows(vectors, parts, part_starts, context, step, _ONE)
            for row in range(used):
                _add(output[targets[row]], _ONE, steps[row])
    return cost, predictions
