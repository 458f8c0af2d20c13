"""Edges among the rows of one label, for searches with a filter that selects one label.

A disk graph may have a label for each row, such as the category of a product. A node then has two
lists of neighbours: of all rows, and of rows with its own label. A search for rows of one label
follows the second list from the label's entry, so it reads no others, however rare the label is.
This is the graph of each label that StitchedVamana builds (Gollapudi et al. 2023, §5), kept apart
from the others instead of pruned together with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.graph import Graph
from idiolect.search.diskann.metric import Metric
from idiolect.search.diskann.row_mask import RowMask

__all__ = ["LABEL_DEGREE", "Labels", "connect", "label_groups"]

LABEL_DEGREE = 48
"""Edges of a row to rows of its label. With 32, recall@10 is .80 where the rows of a label are far
from the queries, and with 48 it is .995 (50,000 of 100,000 × 384, `benchmarks/filters.py`). A page
holds two nodes of 384 dimensions with either."""


@dataclass(frozen=True)
class Labels:
    """The labels of the rows of a graph."""

    of_rows: NDArray[np.int32]
    """(rows,) -1 for none."""
    entries: NDArray[np.int64]
    """(labels,) the row where a search for a label begins."""

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """The number of rows of each label (labels,), including deleted ones."""
        return np.bincount(self.of_rows[self.of_rows >= 0], minlength=len(self.entries))

    def of_mask(self, mask: RowMask) -> int:
        """Return the label that all rows of a mask have, or -1."""
        return mask.common_value(self.of_rows)


def label_groups(labels: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return the rows of each label from 0 on, ascending; rows with a label of -1 are in none."""
    order = np.argsort(labels, kind="stable").astype(np.int32)
    order = order[np.searchsorted(labels[order], 0) :]
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return np.split(order, starts[1:]) if len(order) else []


def connect(
    vectors: NDArray[np.float32],
    degree: int,
    *,
    metric: Metric,
    list_size: int = 100,
    seed: int = 0,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], int]:
    """Return edges among vectors (n, dimension) as int32 (n, degree), and the entry of the graph.

    If there are few vectors, each is connected to all others.
    """
    count = len(vectors)
    if count > degree + 1:
        graph = Graph.build(
            vectors, metric=metric, degree=degree, list_size=list_size, seed=seed, threads=threads
        ).snapshot()
        return graph.edges(), graph.entry
    others = np.arange(count, dtype=np.int32)
    edges = np.full((count, degree), -1, np.int32)
    edges[:, : count - 1] = [np.delete(others, i) for i in range(count)]
    return edges, 0
