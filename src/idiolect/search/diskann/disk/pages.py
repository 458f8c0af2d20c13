"""Nodes on disk: a vector and its neighbours side by side, so that one read brings both.

A page is 4,096 bytes (for wide vectors, several in a row): whole nodes, each its vector and then
the rows of its neighbours, and in the last eight bytes a checksum, compared at every read.

The reads of a beam are announced to the system before the first is waited for, so a disk serves
them together; what the system still has in its cache costs a copy.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numba import types
from numpy.typing import NDArray

from idiolect.search.diskann.array_file import PAGE, checksum
from idiolect.search.diskann.graph_rows import GraphRows
from idiolect.search.diskann.jit import kernel

__all__ = ["PageLayout", "build_pages", "read_pages"]

_CHUNK = 1024
_WILLNEED = 3
_HAS_FADVISE = sys.platform == "linux"

_pread = types.ExternalFunction(
    "pread", types.intp(types.int32, types.uintp, types.uintp, types.int64)
)
_fadvise = types.ExternalFunction(
    "posix_fadvise", types.int32(types.int32, types.int64, types.int64, types.int32)
)


class PageLayout:
    """Where a node is: `node` bytes each, `per_page` of them in `page` bytes.

    Args:
        width: Padded dimension of vectors.
        degree: Neighbours of a node.
    """

    def __init__(self, width: int, degree: int) -> None:
        self.vector = 4 * width
        self.node = -(-(self.vector + 4 * degree) // 64) * 64
        self.page = -(-(self.node + 8) // PAGE) * PAGE
        self.per_page = (self.page - 8) // self.node

    def pages(self, rows: int) -> int:
        """Count the pages of so many rows."""
        return -(-rows // self.per_page)


@kernel
def _seal(pages):  # type: ignore[no-untyped-def]
    """Write the checksum of each page (uint8, one a row) into its last eight bytes."""
    end = pages.shape[1] - 8
    for i in range(pages.shape[0]):
        pages[i, end:].view(np.uint64)[0] = checksum(pages[i, :end])


def build_pages(
    rows: GraphRows, neighbours: NDArray[np.int32], layout: PageLayout
) -> Iterator[NDArray[np.uint8]]:
    """Give the pages of all rows (uint8, one a row), some at a time."""
    step = _CHUNK * layout.per_page
    degree = neighbours.shape[1]
    for start in range(0, rows.count, step):
        stop = min(start + step, rows.count)
        nodes = np.zeros((layout.pages(stop - start) * layout.per_page, layout.node), np.uint8)
        used = nodes[: stop - start]
        used[:, : layout.vector] = rows.vectors[start:stop].view(np.uint8)
        end = layout.vector + 4 * degree
        edges = np.ascontiguousarray(neighbours[start:stop])
        used[:, layout.vector : end] = edges.view(np.uint8)
        pages = np.zeros((layout.pages(stop - start), layout.page), np.uint8)
        pages[:, : layout.node * layout.per_page] = nodes.reshape(len(pages), -1)
        _seal(pages)
        yield pages


@kernel
def read_pages(file, start, page, numbers, count, buffer):  # type: ignore[no-untyped-def]
    """Read pages into the rows of `buffer`; returns -1, or the number of a damaged page.

    `start` is the place of page 0 in the file with this descriptor.
    """
    if _HAS_FADVISE and count > 1:
        for i in range(count):
            _fadvise(
                np.int32(file), np.int64(start + numbers[i] * page), np.int64(page),
                np.int32(_WILLNEED),
            )  # fmt: skip
    for i in range(count):
        got = _pread(
            np.int32(file), np.uintp(buffer.ctypes.data + i * page), np.uintp(page),
            np.int64(start + numbers[i] * page),
        )  # fmt: skip
        whole = buffer[i]
        end = page - 8
        if got != page or whole[end:].view(np.uint64)[0] != checksum(whole[:end]):
            return numbers[i]
    return np.int64(-1)
