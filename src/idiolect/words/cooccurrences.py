"""Co-occurrence counts, in bounded memory.

A pair of words at distance d counts 1/d, as in GloVe. Pairs are summed in a hash table of fixed
size. A full table is sorted and written to disk. At the end the sorted runs are merged in key
ranges that fit into memory, and the sums are written in random order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import ConfigError
from idiolect.text.files import flush
from idiolect.training.progress import show_progress
from idiolect.words.compiled import kernel
from idiolect.words.word_stream import EncodedWords

__all__ = ["PAIR", "count_pairs"]

PAIR = np.dtype([("first", "<i4"), ("second", "<i4"), ("count", "<f8")])
"""Two word ids, and the weighted number of their co-occurrences."""

_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_ENTRY = 16
"""Bytes of a table entry."""
_JOB_WORDS = 100_000


@kernel
def _count(
    ids: Any, bounds: Any, first: int, window: int, keys: Any, sums: Any, used: int, limit: int
) -> Any:
    """Count the sentences from `first` on, until the table is nearly full.

    Returns the next sentence and the number of used entries.
    """
    mask = np.uint64(len(keys) - 1)
    for sentence in range(first, len(bounds) - 1):
        start, end = bounds[sentence], bounds[sentence + 1]
        if used + (end - start) * window > limit:
            return sentence, used
        for place in range(start, end):
            word = ids[place]
            for other in range(max(start, place - window), place):
                low, high = min(word, ids[other]), max(word, ids[other])
                key = (np.uint64(low) << np.uint64(32)) | np.uint64(high)
                slot = ((key * _MIX) >> np.uint64(20)) & mask
                while keys[slot] != key and keys[slot] != _EMPTY:
                    slot = (slot + np.uint64(1)) & mask
                if keys[slot] == _EMPTY:
                    keys[slot] = key
                    used += 1
                sums[slot] += 1.0 / (place - other)
    return len(bounds) - 1, used


def count_pairs(
    encoded: EncodedWords, folder: Path, *, window: int = 15, memory_mb: int = 1024, seed: int = 0
) -> NDArray[Any]:
    """Count all pairs within a window; both orders of a pair are in the result.

    Args:
        encoded: The corpus.
        folder: Where `pairs.bin` and temporary files are written.
        window: Maximum distance.
        memory_mb: Memory of the table, in MiB.
        seed: Random seed of the pairs' order.

    Returns:
        The pairs in random order, memory-mapped; type `PAIR`.
    """
    most = max(1 << 16, 2 * len(encoded) * window)  # an upper bound
    slots = 1 << max(16, int(np.log2(min(memory_mb * 2**20 / _ENTRY, 2 * most))))
    limit = slots * 7 // 10
    longest = int(np.diff(encoded.bounds).max()) * window
    if longest > limit:
        raise ConfigError(
            f"a memory of {memory_mb} MiB does not hold the pairs of one sentence",
            hint="raise memory_mb",
        )
    keys, sums = np.full(slots, _EMPTY, np.uint64), np.zeros(slots)
    runs: list[NDArray[Any]] = []
    used = 0
    with show_progress("counting pairs of words", len(encoded)) as activity:
        for first, last in encoded.jobs(_JOB_WORDS):
            ids, bounds = encoded.read(first, last)
            sentence = 0
            while sentence < last - first:
                sentence, used = _count(ids, bounds, sentence, window, keys, sums, used, limit)
                if sentence < last - first:
                    runs.append(_spill(keys, sums, folder / f"run{len(runs)}.bin"))
                    used = 0
            activity.update(int(encoded.bounds[last]))
    runs.append(_spill(keys, sums, folder / f"run{len(runs)}.bin"))
    del keys, sums
    pairs = _merge(runs, folder, slots // 4, np.random.default_rng(seed))
    for number in range(len(runs)):
        (folder / f"run{number}.bin").unlink()
    return pairs


_SUM = np.dtype([("key", "<u8"), ("count", "<f8")])


def _spill(keys: NDArray[Any], sums: NDArray[Any], path: Path) -> NDArray[Any]:
    """Write the table sorted by key, and empty it."""
    filled = np.flatnonzero(keys != _EMPTY)
    filled = filled[np.argsort(keys[filled])]
    run = np.empty(len(filled), _SUM)
    run["key"], run["count"] = keys[filled], sums[filled]
    run.tofile(path)
    keys[:], sums[:] = _EMPTY, 0
    return np.memmap(path, _SUM, mode="r") if len(run) else run


def _merge(
    runs: list[NDArray[Any]], folder: Path, room: int, generator: np.random.Generator
) -> NDArray[Any]:
    """Sum the runs range by range, and write the pairs in random order."""
    total = sum(len(run) for run in runs)
    # Each pair is assigned to a random part; a part fits into memory and is shuffled there.
    parts = [(folder / f"part{i}.bin").open("wb") for i in range(max(1, 2 * total // room + 1))]
    for low, high in _ranges(runs, room):
        chunk = np.concatenate(
            [run[slice(*np.searchsorted(run["key"], [low, high]))] for run in runs]
        )
        chunk = chunk[np.argsort(chunk["key"], kind="stable")]
        starts = np.flatnonzero(np.diff(chunk["key"], prepend=_EMPTY))
        if not len(starts):
            continue
        distinct, counts = chunk["key"][starts], np.add.reduceat(chunk["count"], starts)
        first, second = distinct >> np.uint64(32), distinct & np.uint64(0xFFFFFFFF)
        own = first == second
        counts[own] *= 2  # a word with itself: both orders share one entry
        pairs = np.empty(len(starts) * 2 - int(own.sum()), PAIR)
        pairs["first"] = np.concatenate([first, second[~own]])
        pairs["second"] = np.concatenate([second, first[~own]])
        pairs["count"] = np.concatenate([counts, counts[~own]])
        drawn = generator.integers(len(parts), size=len(pairs))
        for number, file in enumerate(parts):
            file.write(pairs[drawn == number].tobytes())
    with (folder / "pairs.bin").open("wb") as out:
        for file in parts:
            file.close()
            out.write(generator.permutation(np.fromfile(file.name, PAIR)).tobytes())
            Path(file.name).unlink()
    flush(folder / "pairs.bin")
    if not (folder / "pairs.bin").stat().st_size:
        return np.zeros(0, PAIR)
    return np.memmap(folder / "pairs.bin", PAIR, mode="r")


def _ranges(runs: list[NDArray[Any]], room: int) -> list[tuple[Any, Any]]:
    """Return key ranges in which the runs together have about `room` entries."""
    step = max(1, room // len(runs))
    edges = np.unique(np.concatenate([run["key"][::step] for run in runs] + [[np.uint64(0)]]))
    edges = edges.astype(np.uint64)
    return list(zip(edges, [*edges[1:], _EMPTY], strict=True))
