"""Vamana's construction, in batches whose points are placed side by side.

The points of a batch are searched for in the graph as it was before the batch, each chooses its
neighbours from the rows its search expanded, and then every row that was chosen gets the edges
back, pruned when there are too many. Within each step no two tasks write the same row, so nothing
is locked and any number of threads gives the same graph (as in ParlayANN, Dobson et al. 2023).
A first pass uses `alpha = 1`, a second one the real `alpha` on a graph that is navigable by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.beam import beam
from idiolect.search.diskann.codes import code_room, prepare_query
from idiolect.search.diskann.graph_rows import GraphRows
from idiolect.search.diskann.graph_search import next_tag
from idiolect.search.diskann.hubs import attract
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.metric import METRICS
from idiolect.search.diskann.prune import choose, sort_candidates
from idiolect.search.diskann.threads import Crew, by_target

__all__ = ["BuildPlan", "connect", "construct"]

_SLACK = 1.3
"""Room for edges back while building; without it nearly each of them would prune a row."""
_BATCH = 4096
"""Points placed at once."""
_PIECE = 32
"""Points in the work of one thread."""


@dataclass(frozen=True)
class BuildPlan:
    """How rows are placed."""

    width: int
    """Rows kept in view by the search for a point."""
    alpha: float
    """Factor of the pruning, on squared distances."""
    seed: int
    """Of the order in which rows are placed."""


@kernel
def _propose(  # type: ignore[no-untyped-def]
    vectors, codes, bits, step, side, weight, neighbours, entry, points, width, alpha, seen,
    chosen,
):  # fmt: skip
    """Search for each point and choose its neighbours; the graph is only read."""
    lines = codes.shape[1] // 64
    wide = vectors.shape[1] // 16
    code = code_room(lines, bits)
    trail = np.empty(4 * width, np.int32)
    candidates = np.empty(4 * width + neighbours.shape[1], np.int32)
    pool = np.empty(width, np.int64)
    for i in range(points.shape[0]):
        point = points[i]
        scale = prepare_query(vectors[point], step, bits, code)
        beam(
            codes.ctypes.data, lines, bits, side, weight, neighbours, neighbours[:, :0], entry,
            code.ctypes.data, scale, pool, seen, next_tag(seen), trail,
        )  # fmt: skip
        count = trail[trail.shape[0] - 1]
        candidates[:count] = trail[:count]
        for other in neighbours[point]:
            if other < 0:
                break
            candidates[count] = other
            count += 1
        keys = sort_candidates(vectors.ctypes.data, wide, point, candidates, count)
        choose(vectors.ctypes.data, wide, point, keys, alpha, chosen[i])


@kernel
def _link_back(vectors, neighbours, degree, alpha, targets, starts, sources):  # type: ignore[no-untyped-def]
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
        keys = sort_candidates(vectors.ctypes.data, wide, targets[i], candidates, total)
        row[degree:] = -1
        choose(vectors.ctypes.data, wide, targets[i], keys, alpha, row[:degree])


@kernel
def _trim(vectors, neighbours, alpha, start, stop, out):  # type: ignore[no-untyped-def]
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
            keys = sort_candidates(vectors.ctypes.data, wide, row, neighbours[row], count)
            choose(vectors.ctypes.data, wide, row, keys, alpha, out[row])


def _batches(order: NDArray[np.int64], placed: int) -> Iterator[NDArray[np.int64]]:
    """Cut an order into batches that stay small beside what is placed already."""
    start = 0
    while start < len(order):
        size = min(_BATCH, max(1, (placed + start) // 8))
        yield order[start : start + size]
        start += size


def _place(
    rows: GraphRows,
    graph: NDArray[np.int32],
    batch: NDArray[np.int64],
    width: int,
    alpha: float,
    crew: Crew,
) -> None:
    """Place the points of one batch in a graph (rows, degree or more columns)."""
    degree = rows.neighbours.shape[1]
    factor, weight = np.float32(alpha), np.float32(rows.metric != METRICS["cosine"])
    chosen = np.empty((len(batch), degree), np.int32)

    def propose(start: int, stop: int) -> None:
        seen = rows.marks.take()
        _propose(
            *rows.steering, weight, graph, rows.entry, batch[start:stop], width, factor, seen,
            chosen[start:stop],
        )  # fmt: skip
        rows.marks.give(seen)

    crew.share(propose, len(batch), _PIECE)
    graph[batch, :degree] = chosen
    graph[batch, degree:] = -1
    targets, starts, sources = by_target(chosen, batch)

    def link(start: int, stop: int) -> None:
        part, bounds = targets[start:stop], starts[start : stop + 1]
        _link_back(rows.vectors, graph, degree, factor, part, bounds, sources)

    crew.share(link, len(targets), 8 * _PIECE)


def connect(
    rows: GraphRows, points: NDArray[np.int64], placed: int, plan: BuildPlan, crew: Crew
) -> None:
    """Place new points in the graph, in this order; `placed` rows are in it already."""
    many = 8 * len(points) > placed
    graph = _with_slack(rows) if many else rows.neighbours
    for batch in _batches(points, placed):
        _place(rows, graph, batch, plan.width, plan.alpha, crew)
    if many:
        _narrow(rows, graph, plan.alpha, crew)
    for batch in _batches(points, placed):
        attract(rows, batch, plan.width, crew)


def construct(rows: GraphRows, plan: BuildPlan, crew: Crew) -> None:
    """Build the graph of all rows: two passes in a random order."""
    graph = _with_slack(rows)
    order = np.random.default_rng(plan.seed).permutation(rows.count)
    order = order[order != rows.entry]
    for placed, alpha in ((1, 1.0), (rows.count, plan.alpha)):
        for batch in _batches(order, placed):
            _place(rows, graph, batch, plan.width, alpha, crew)
    _narrow(rows, graph, plan.alpha, crew)
    for _ in range(2):  # the second round walks by what the first has found
        for batch in _batches(np.arange(rows.count), rows.count):
            attract(rows, batch, plan.width, crew)


def _with_slack(rows: GraphRows) -> NDArray[np.int32]:
    """Return the graph in wider rows."""
    degree = rows.neighbours.shape[1]
    graph = np.full((len(rows.alive), int(_SLACK * degree) + 1), -1, np.int32)
    graph[:, :degree] = rows.neighbours
    return graph


def _narrow(rows: GraphRows, graph: NDArray[np.int32], alpha: float, crew: Crew) -> None:
    """Take the graph back into its rows, pruning those that are too long."""
    factor = np.float32(alpha)
    crew.share(
        lambda a, b: _trim(rows.vectors, graph, factor, a, b, rows.neighbours),
        rows.count,
        1024,
    )
