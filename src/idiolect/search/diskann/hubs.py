"""Edges for inner products: from each row to the rows with which its product is largest.

The largest inner products go to long vectors, which need not be anywhere near a query, so a graph
of near rows does not lead to them. Half of a row's edges are therefore kept for these hubs, as in
ip-NSW+ (Liu et al. 2020): the walk finds the right direction by near rows and the long vectors by
hubs. They are found by searching the graph itself, each row in turn being the query.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.beam import beam, insert, pack, row_of
from idiolect.search.diskann.codes import code_room, prepare_query
from idiolect.search.diskann.graph_rows import GraphRows
from idiolect.search.diskann.graph_search import next_tag
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.simd import dot
from idiolect.search.diskann.threads import Crew, by_target

__all__ = ["attract"]

_PIECE = 32


@kernel
def _keep_best(vectors, row, candidates, count, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the candidates of the largest products with a row, largest first."""
    lines = vectors.shape[1] // 16
    base = vectors.ctypes.data
    best = np.empty(out.shape[0], np.int64)
    found = 0
    for j in range(count):
        other = np.int64(candidates[j])
        if other == row:
            continue
        key = pack(-dot(base + row * lines * 64, base + other * lines * 64, lines), other)
        known = False
        for i in range(found):
            known |= best[i] == key
        if not known:
            insert(best, found, key)
            found = min(found + 1, out.shape[0])
    for j in range(out.shape[0]):
        out[j] = row_of(best[j]) if j < found else -1


@kernel
def _find_hubs(  # type: ignore[no-untyped-def]
    vectors, codes, bits, step, side, alive, neighbours, hubs, entry, points, width, seen, chosen,
):  # fmt: skip
    """Search for the hubs of each point."""
    lines = codes.shape[1] // 64
    code = code_room(lines, bits)
    pool = np.empty(max(width, 2 * hubs.shape[1]), np.int64)
    candidates = np.empty(pool.shape[0], np.int32)
    trail = np.empty(0, np.int32)
    for i in range(points.shape[0]):
        scale = prepare_query(vectors[points[i]], step, bits, code)
        size = beam(
            codes.ctypes.data, lines, bits, side, np.float32(0), neighbours, hubs, entry,
            code.ctypes.data, scale, pool, seen, next_tag(seen), trail,
        )  # fmt: skip
        count = 0
        for j in range(size):
            if alive[row_of(pool[j])]:
                candidates[count] = row_of(pool[j])
                count += 1
        _keep_best(vectors, points[i], candidates, count, chosen[i])


@kernel
def _offer(vectors, hubs, targets, starts, sources):  # type: ignore[no-untyped-def]
    """Let each target take the points that found it, where their product is large enough."""
    degree = hubs.shape[1]
    for i in range(targets.shape[0]):
        count = starts[i + 1] - starts[i]
        candidates = np.empty(degree + count, np.int32)
        candidates[:count] = sources[starts[i] : starts[i + 1]]
        for other in hubs[targets[i]]:
            if other >= 0:
                candidates[count] = other
                count += 1
        _keep_best(vectors, targets[i], candidates, count, hubs[targets[i]])


def attract(rows: GraphRows, points: NDArray[np.int64], width: int, crew: Crew) -> None:
    """Find the hubs of points that are in the graph, and offer the points to them as hubs.

    Does nothing under metrics that need none.
    """
    if not rows.hubs.shape[1]:
        return
    chosen = np.empty((len(points), rows.hubs.shape[1]), np.int32)

    def find(start: int, stop: int) -> None:
        seen = rows.marks.take()
        _find_hubs(
            *rows.steering, rows.alive, rows.neighbours, rows.hubs, rows.entry,
            points[start:stop], width, seen, chosen[start:stop],
        )  # fmt: skip
        rows.marks.give(seen)

    crew.share(find, len(points), _PIECE)
    rows.hubs[points] = chosen
    targets, starts, sources = by_target(chosen, points)

    def offer(start: int, stop: int) -> None:
        part, bounds = targets[start:stop], starts[start : stop + 1]
        _offer(rows.vectors, rows.hubs, part, bounds, sources)

    crew.share(offer, len(targets), 8 * _PIECE)
