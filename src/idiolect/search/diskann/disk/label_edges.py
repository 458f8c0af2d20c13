"""Edges among the rows of one label, for searches with a filter that selects one label.

A disk graph may have a label for each row, such as the category of a product. A node then has two
lists of neighbours: among all rows, and among rows with its own label. A search for rows of one
label starts at the label's entry and follows the second list, so it reads no other rows, however
rare the label is. StitchedVamana (Gollapudi et al. 2023, §5) also builds a graph for each label,
but merges and prunes their edges together; here they are kept separate.
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
"""Maximum edges of a row to rows of its label. If the rows of a label are far from the queries,
recall@10 is .80 with 32 and .995 with 48 (50,000 of 100,000 × 384, `benchmarks/filters.py`). With
either, a page holds two nodes of 384 dimensions."""


@dataclass(frozen=True)
class Labels:
    """The labels of the rows of a graph."""

    of_rows: NDArray[np.int32]
    """(rows,) the label of each row, -1 for none."""
    entries: NDArray[np.int64]
    """(labels,) the row where a search for each label starts."""

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """The number of rows of each label (labels,), including deleted ones."""
        return np.bincount(self.of_rows[self.of_rows >= 0], minlength=len(self.entries))

    def of_mask(self, mask: RowMask) -> int:
        """Return the label that all rows of a mask have, or -1."""
        return mask.common_value(self.of_rows)


def label_groups(labels: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return the rows of each label, starting at label 0; rows without a label (-1) are skipped."""
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
