"""Vamana's construction, in batches whose points are placed side by side.

The points of a batch are searched for in the graph as it was before the batch, each chooses its
neighbours from the rows its search expanded, and then every row that was chosen gets the edges
back, pruned when there are too many. Within each step no two tasks write the same row, so nothing is
locked and any number of threads gives the same graph (as in ParlayANN, Dobson et al. 2023).
A first pass uses `alpha = 1`, a second one the real `alpha` on a graph that is navigable by then.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.beam import beam
from idiolect.search.diskann.codes import prepare_query
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.prune import choose, sort_candidates
from idiolect.search.diskann.rows import Rows
from idiolect.search.diskann.search import next_tag
from idiolect.search.diskann.threads import Crew, Marks

__all__ = ["connect", "construct", "trim"]

_SLACK = 1.3
"""Room for edges back while building; without it nearly each of them would prune a row."""
_BATCH = 4096
"""Points placed at once."""
_PIECE = 32
"""Points in the work of one thread."""


@kernel
def _propose(  # type: ignore[no-untyped-def]
    vectors, codes, bits, step, side, metric, neighbours, entry, points, width, alpha, seen, chosen
):
    """Search for each point and choose its neighbours; the graph is only read."""
    lines = codes.shape[1] // 64
    wide = vectors.shape[1] // 16
    query = np.empty(lines * (128 if bits == 4 else 64) + 64, np.uint8)
    start = -query.ctypes.data % 64
    query = query[start:]
    trail = np.empty(4 * width, np.int32)
    candidates = np.empty(4 * width + neighbours.shape[1], np.int32)
    pool = np.empty(width, np.int64)
    lift = side if metric == 1 else side[:0]
    for i in range(points.shape[0]):
        point = points[i]
        scale = prepare_query(vectors[point], step, bits, query)
        weight = np.float32(0)
        if metric == 1:
            weight = side[point]
        elif metric == 2:
            weight = np.float32(1)
        beam(
            codes.ctypes.data, lines, bits, side, weight, neighbours, entry,
            query.ctypes.data, scale, pool, seen, next_tag(seen), trail,
        )  # fmt: skip
        count = trail[trail.shape[0] - 1]
        candidates[:count] = trail[:count]
        for other in neighbours[point]:
            if other < 0:
                break
            candidates[count] = other
            count += 1
        keys = sort_candidates(vectors.ctypes.data, wide, lift, point, candidates, count)
        choose(vectors.ctypes.data, wide, lift, point, keys, alpha, chosen[i])


@kernel
def _link_back(vectors, lift, neighbours, degree, alpha, targets, starts, sources):  # type: ignore[no-untyped-def]
    """Give each target the edges back from the points that chose it; prune rows that overflow."""
    wide = vectors.shape[1] // 16
    room = neighbours.shape[1]
    for i in range(targets.shape[0]):
        row = neighbours[targets[i]]
        count = 0
        while count < room and row[count] >= 0:
            count += 1
        candidates = np.empty(count + starts[i + 1] - starts[i], np.int32)
        candidates[:count] = row[:count]
        total = count
        for source in sources[starts[i] : starts[i + 1]]:
            known = False
            for j in range(count):
                known |= row[j] == source
            if not known:
                candidates[total] = source
                total += 1
        if total <= room:
            row[:total] = candidates[:total]
            continue
        keys = sort_candidates(vectors.ctypes.data, wide, lift, targets[i], candidates, total)
        row[degree:] = -1
        choose(vectors.ctypes.data, wide, lift, targets[i], keys, alpha, row[:degree])


@kernel
def _trim(vectors, lift, neighbours, alpha, start, stop, out):  # type: ignore[no-untyped-def]
    """Copy rows start..stop-1 into narrower ones, pruning those that are too long."""
    wide = vectors.shape[1] // 16
    degree = out.shape[1]
    for row in range(start, stop):
        count = 0
        while count < neighbours.shape[1] and neighbours[row, count] >= 0:
            count += 1
        if count <= degree:
            out[row] = neighbours[row, :degree]
        else:
            keys = sort_candidates(vectors.ctypes.data, wide, lift, row, neighbours[row], count)
            choose(vectors.ctypes.data, wide, lift, row, keys, alpha, out[row])


def _batches(order: NDArray[np.int64], placed: int) -> Iterator[NDArray[np.int64]]:
    """Cut an order into batches that stay small beside what is placed already."""
    start = 0
    while start < len(order):
        size = min(_BATCH, max(1, (placed + start) // 8))
        yield order[start : start + size]
        start += size


def connect(
    rows: Rows,
    neighbours: NDArray[np.int32],
    points: NDArray[np.int64],
    *,
    placed: int,
    width: int,
    degree: int,
    alpha: float,
    crew: Crew,
    marks: Marks,
) -> None:
    """Place points in a graph, in this order, with edges back.

    Args:
        rows: What the rows are.
        neighbours: The graph, int32 (rows, at least `degree`), changed in place.
        points: Rows to place.
        placed: How many rows the graph reaches already.
        width: Width of the search for each point.
        degree: Neighbours of a row after pruning.
        alpha: Factor of the pruning, on squared distances.
        crew: Threads.
        marks: For the searches.
    """
    factor = np.float32(alpha)
    for batch in _batches(points, placed):
        chosen = np.empty((len(batch), degree), np.int32)

        def propose(start: int, stop: int) -> None:
            seen = marks.take()
            _propose(
                rows.vectors, rows.codes, rows.quantiser.bits, rows.quantiser.step, rows.side,
                rows.metric, neighbours, rows.entry, batch[start:stop], width, factor, seen,
                chosen[start:stop],
            )  # fmt: skip
            marks.give(seen)

        crew.share(propose, len(batch), _PIECE)
        neighbours[batch, :degree] = chosen
        neighbours[batch, degree:] = -1
        pairs = (chosen.astype(np.int64) << 32) | batch[:, None]
        pairs = np.sort(pairs[chosen >= 0])
        sources, all_targets = pairs & 0xFFFFFFFF, pairs >> 32
        starts = np.flatnonzero(np.diff(all_targets, prepend=-1, append=-1))
        targets = all_targets[starts[:-1]]

        def link(start: int, stop: int) -> None:
            _link_back(
                rows.vectors, rows.lift, neighbours, degree, factor, targets[start:stop],
                starts[start : stop + 1], sources,
            )  # fmt: skip

        crew.share(link, len(targets), 8 * _PIECE)


def trim(
    rows: Rows, neighbours: NDArray[np.int32], out: NDArray[np.int32], alpha: float, crew: Crew
) -> None:
    """Copy a graph into an array of fewer columns, pruning the rows that are too long."""
    factor = np.float32(alpha)
    crew.share(
        lambda a, b: _trim(rows.vectors, rows.lift, neighbours, factor, a, b, out),
        rows.count,
        1024,
    )


def construct(rows: Rows, *, width: int, degree: int, alpha: float, seed: int, crew: Crew) -> None:
    """Build the graph of all rows: two passes in a random order."""
    neighbours = np.full((rows.count, max(degree + 1, int(_SLACK * degree))), -1, np.int32)
    marks = Marks(rows.count)
    order = np.random.default_rng(seed).permutation(rows.count)
    order = order[order != rows.entry]
    for placed, factor in ((1, 1.0), (rows.count, alpha)):
        connect(
            rows,
            neighbours,
            order,
            placed=placed,
            width=width,
            degree=degree,
            alpha=factor,
            crew=crew,
            marks=marks,
        )
    trim(rows, neighbours, rows.neighbours, alpha, crew)
