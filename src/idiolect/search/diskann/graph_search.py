"""Queries in memory: steer by codes, rank what was found by the vectors themselves."""

from __future__ import annotations

import numpy as np

from idiolect.search.diskann.beam import beam, insert, pack, row_of
from idiolect.search.diskann.codes import code_room, load_row, prepare_query
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.simd import dot, squared_distance

__all__ = ["next_tag", "rank", "scan", "search_graph", "write_best"]


@kernel
def next_tag(seen):  # type: ignore[no-untyped-def]
    """Return a mark no row has; the last byte of `seen` counts, and starts again after 255."""
    last = seen.shape[0] - 1
    if seen[last] == 255:
        seen[:] = 0
    seen[last] += 1
    return seen[last]


@kernel
def write_best(best, found, ids, scores):  # type: ignore[no-untyped-def]
    """Unpack candidates into rows and scores; what is left over gets -1 and minus infinity."""
    for j in range(found):
        ids[j] = row_of(best[j])
        ordered = best[j] >> 32
        scores[j] = -np.int32(ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(np.float32)
    for j in range(found, best.shape[0]):
        ids[j] = -1
        scores[j] = -np.inf


@kernel
def rank(vectors, metric, query, pool, size, best, ids, scores):  # type: ignore[no-untyped-def]
    """Write the best of a list of candidates by their exact scores.

    `best` (int64, as long as the result) is scratch. Cosine and inner product give `query · x`,
    L2 the negated squared distance; places that stay empty get -1 and minus infinity.
    """
    lines = vectors.shape[1] // 16
    base = vectors.ctypes.data
    place = query.ctypes.data
    found = 0
    for j in range(min(2, size)):
        load_row(base, row_of(pool[j]), lines)
    for j in range(size):
        if j + 2 < size:
            load_row(base, row_of(pool[j + 2]), lines)
        row = row_of(pool[j])
        at = base + row * (lines * 64)
        distance = squared_distance(at, place, lines) if metric == 2 else -dot(at, place, lines)
        insert(best, found, pack(distance, row))
        found = min(found + 1, best.shape[0])
    write_best(best, found, ids, scores)


@kernel
def search_graph(  # type: ignore[no-untyped-def]
    vectors, codes, bits, step, side, metric, neighbours, hubs, entry, queries, width, seen, ids,
    scores,
):  # fmt: skip
    """Answer queries (q, padded dimension) one after another; the results are (q, k)."""
    lines = codes.shape[1] // 64
    code = code_room(lines, bits)
    pool = np.empty(width, np.int64)
    best = np.empty(ids.shape[1], np.int64)
    trail = np.empty(0, np.int32)
    weight = np.float32(1) if metric == 2 else np.float32(0)
    for i in range(queries.shape[0]):
        scale = prepare_query(queries[i], step, bits, code)
        size = beam(
            codes.ctypes.data, lines, bits, side, weight, neighbours, hubs, entry,
            code.ctypes.data, scale, pool, seen, next_tag(seen), trail,
        )  # fmt: skip
        rank(vectors, metric, queries[i], pool, size, best, ids[i], scores[i])


@kernel
def scan(vectors, metric, rows, queries, ids, scores):  # type: ignore[no-untyped-def]
    """Answer queries exactly, from the given rows alone."""
    pool = np.empty(rows.shape[0], np.int64)
    for j in range(rows.shape[0]):
        pool[j] = np.int64(rows[j]) << 1
    best = np.empty(ids.shape[1], np.int64)
    for i in range(queries.shape[0]):
        rank(vectors, metric, queries[i], pool, pool.shape[0], best, ids[i], scores[i])
