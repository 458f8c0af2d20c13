"""The compiled inner loops of skip-gram and CBOW, in float32.

`train_windows` trains each window in one of two orders of the same arithmetic:

- Pair by pair, as in word2vec.c: one prediction, its negatives, one update.
- Shared: read the middle word and one set of negatives once per window, and predict them from all
  context words: three small matrix products instead of many dot products (Ji et al. 2016,
  "Parallelizing Word2Vec in Shared and Distributed Memory", arXiv 1604.04661).

                       ┌ middle word, label 1 ┐
    context words  ×   │ negative 1,  label 0 │  = scores ─► errors ─► updates of both sides
    (up to 2 window)   └ negative …           ┘

Threads write to the same rows without locks (Hogwild, Recht et al. 2011). The loss is exact: it is
summed in float64 over every prediction.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from idiolect.words.compiled import compiled, kernel
from idiolect.words.random_words import next_random, sample_word, uniform

__all__ = ["train_windows"]

_LIMIT = np.float32(6)
_PLACES = 1000
_ONE, _ZERO = np.float32(1), np.float32(0)
_GRID = (np.arange(_PLACES + 2, dtype=np.float64) / _PLACES * 2 - 1) * 6
_SIGMOID = (1 / (1 + np.exp(-_GRID))).astype(np.float32)
_SOFTPLUS = np.log1p(np.exp(_GRID)).astype(np.float32)
_TO_PLACE = np.float32(_PLACES / 12)


@compiled(inline="always")
def _sigmoid(score: Any) -> Any:
    """Return the sigmoid to 2e-6, interpolated from a table; 0 or 1 beyond ±6, as in word2vec.c.

    word2vec.c rounds down to a table entry. Its jumps of up to .003 would let the last bit of a
    score decide how far a row moves.
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


@compiled()
def _copy(target: Any, row: Any) -> None:
    for k in range(len(target)):
        target[k] = row[k]


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
    """Copy the words that subsampling keeps; return their number and the generator's state."""
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
    """Add a word's row, or the mean of its own and its n-grams' rows, to a buffer."""
    if len(parts) == 0:
        _add(target, factor, vectors[word])
        return
    first, last = starts[word], starts[word + 1]
    share = factor / np.float32(last - first)
    for part in range(first, last):
        _add(target, share, vectors[parts[part]])


@compiled(inline="always")
def _write_rows(vectors: Any, parts: Any, starts: Any, word: Any, step: Any, factor: Any) -> None:
    """Add a step to a word's row or, as in fastText, undivided to each of its rows."""
    if len(parts) == 0:
        _add(vectors[word], factor, step)
        return
    for part in range(starts[word], starts[word + 1]):
        _add(vectors[parts[part]], factor, step)


@compiled(inline="always")
def _predict_negatives(
    hidden: Any, step: Any, word: Any, output: Any, negative: Any, noise: Any, rate: Any, state: Any
) -> Any:
    """Predict a word against noise words; return the loss and the generator's state."""
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
    """Predict the branches of a word's Huffman path; return the loss.

    As in word2vec.c, a branch whose score is beyond ±6 is not trained.
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


@compiled(inline="always")
def _train_pairs(
    kept: Any,
    first: Any,
    place: Any,
    last: Any,
    rows: Any,
    context: Any,
    prediction: Any,
    rate: Any,
    state: Any,
    buffers: Any,
) -> Any:
    """Train a window prediction by prediction; return loss, predictions and generator state."""
    vectors, output, parts, part_starts = rows
    cbow, mean, divide = context
    noise, codes, negative = prediction
    hidden, step = buffers[0], buffers[1]
    cost, predictions = 0.0, 0
    word = kept[place]
    start = first
    while start < last:  # CBOW uses all context words for one prediction, skip-gram one
        end = last if cbow else start + 1
        if start == place and not cbow:
            start = end
            continue
        share = _ONE / np.float32(last - first - 1) if cbow and mean else _ONE
        hidden[:] = _ZERO
        step[:] = _ZERO
        for other in range(start, end):
            if other != place:
                _read_rows(vectors, parts, part_starts, kept[other], hidden, share)
        if negative:
            spent, state = _predict_negatives(
                hidden, step, word, output, negative, noise, rate, state
            )
        else:
            spent = _predict_codes(hidden, step, word, output, codes, rate)
        cost += spent
        predictions += 1
        factor = share if divide else _ONE
        for other in range(start, end):
            if other != place:
                _write_rows(vectors, parts, part_starts, kept[other], step, factor)
        start = end
    return cost, predictions, state


@compiled(fastmath={"reassoc", "nsz", "contract"})
def _dots(a: Any, rows: Any, count: Any, scores: Any) -> None:
    """Compute dot products of a row with others, three at a time, to read the row less often."""
    for at in range(0, count, 3):
        x, y, z = rows[at], rows[at + 1], rows[at + 2]
        p = q = r = _ZERO
        for k in range(len(a)):
            p += a[k] * x[k]
            q += a[k] * y[k]
            r += a[k] * z[k]
        scores[at], scores[at + 1], scores[at + 2] = p, q, r


@compiled(fastmath={"contract"})
def _add_rows(target: Any, factors: Any, rows: Any, count: Any) -> None:
    """Add weighted rows to a row, three at a time, to read and write the row less often."""
    for at in range(0, count, 3):
        e, f, g = factors[at], factors[at + 1], factors[at + 2]
        x, y, z = rows[at], rows[at + 1], rows[at + 2]
        for k in range(len(target)):
            target[k] += e * x[k] + f * y[k] + g * z[k]


@compiled(inline="always")
def _draw_targets(
    word: Any, negative: Any, noise: Any, output: Any, targets: Any, near: Any, state: Any
) -> Any:
    """Sample a window's noise words, and copy the rows of all targets; return their number."""
    targets[0] = word
    used = 1
    for _ in range(negative):
        state = next_random(state)
        target = sample_word(state, noise[0], noise[1])
        if target != word:
            targets[used] = target
            used += 1
    for row in range(used):
        _copy(near[row], output[targets[row]])
    near[used:, :] = _ZERO
    return used, state


@compiled(inline="always")
def _errors(hidden: Any, near: Any, used: Any, rate: Any, errors: Any) -> Any:
    """Compute the errors of one context word's predictions; return their loss."""
    cost = 0.0
    _dots(hidden, near, used, errors)
    cost += _cost(-errors[0])
    errors[0] = (_ONE - _sigmoid(errors[0])) * rate
    for row in range(1, used):
        score = errors[row]
        cost += _cost(score)
        errors[row] = -_sigmoid(score) * rate
    return cost


@compiled(inline="always")
def _train_shared(
    kept: Any,
    first: Any,
    place: Any,
    last: Any,
    rows: Any,
    prediction: Any,
    rate: Any,
    state: Any,
    buffers: Any,
) -> Any:
    """Train skip-gram on a window with shared negatives; return the same as `_train_pairs`.

    All scores of a window are computed before any of its output rows changes.
    """
    vectors, output, parts, part_starts = rows
    noise, _, negative = prediction
    _, step, targets, near, hidden, errors, _ = buffers
    used, state = _draw_targets(
        np.int64(kept[place]), negative, noise, output, targets, near, state
    )
    cost, made = 0.0, 0
    for other in range(first, last):
        if other == place:
            continue
        word = kept[other]
        own = hidden[made]
        if len(parts) == 0:
            _copy(own, vectors[word])
        else:
            own[:] = _ZERO
            _read_rows(vectors, parts, part_starts, word, own, _ONE)
        cost += _errors(own, near, used, rate, errors[made])
        if len(parts) == 0:
            _add_rows(vectors[word], errors[made], near, used)
        else:
            step[:] = _ZERO
            _add_rows(step, errors[made], near, used)
            _write_rows(vectors, parts, part_starts, word, step, _ONE)
        made += 1
    errors[made : made + 2, :] = _ZERO
    for row in range(used):
        _add_rows(output[targets[row]], errors[:, row], hidden, made)
    return cost, made, state


def train_windows(
    ids: Any,
    bounds: Any,
    keep: Any,
    rows: Any,
    context: Any,
    prediction: Any,
    window: int,
    shared: bool,
    rates: Any,
    seed: Any,
) -> Any:
    """Train on some sentences. Return the summed loss and the number of predictions.

    Args:
        ids: The words of all sentences, concatenated. int32.
        bounds: Start of each sentence, and the end of the last. int64.
        keep: Probability of keeping each word. float32.
        rows: Four arrays. Input rows: words, then n-gram buckets; float32, changed in place. Output
            rows: words, or inner nodes of the Huffman tree; float32, changed in place. Input row
            indices of each word and its n-grams, its own first; empty without n-grams. Start of
            each word's indices.
        context: Three booleans. Whether the middle word is predicted from all context words (CBOW)
            instead of from each; whether the context is averaged instead of summed; whether the
            gradient of an average is divided by the number of words.
        prediction: The alias table of the noise words; starts, nodes and bits of the Huffman
            paths, used without noise words; the number of noise words, 0 for hierarchical softmax.
        window: Maximum distance of a context word; the actual one is random.
        shared: Skip-gram: whether the predictions of a window share their noise words.
        rates: Learning rate at the first and after the last word. float32.
        seed: State of the random generator. uint64.
    """
    width, sizes = rows[0].shape[1], np.diff(bounds)
    targets, contexts = _in_threes(prediction[2] + 1), _in_threes(2 * window)
    buffers = (
        np.zeros(width, np.float32),
        np.zeros(width, np.float32),
        np.empty(targets, np.int64),
        np.zeros((targets, width), np.float32),
        np.zeros((contexts, width), np.float32),
        np.zeros((contexts, targets), np.float32),
        np.empty(sizes.max(initial=0), np.int32),
    )
    return _train(
        ids, bounds, keep, rows, context, prediction, window, shared, rates, seed, buffers
    )


def _in_threes(count: int) -> int:
    return -(-count // 3) * 3


@kernel
def _train(
    ids: Any,
    bounds: Any,
    keep: Any,
    rows: Any,
    context: Any,
    prediction: Any,
    window: int,
    shared: bool,
    rates: Any,
    seed: Any,
    buffers: Any,
) -> Any:
    kept = buffers[-1]
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
            if shared:
                spent, made, state = _train_shared(
                    kept, first, place, last, rows, prediction, rate, state, buffers
                )
            else:
                spent, made, state = _train_pairs(
                    kept, first, place, last, rows, context, prediction, rate, state, buffers
                )
            cost += spent
            predictions += made
    return cost, predictions
