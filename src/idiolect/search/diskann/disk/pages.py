"""The pages of a disk graph: a node's vector and neighbours together, so that one read gets both.

A page is 4,096 bytes, or a multiple for wide vectors. It holds whole nodes, each a vector followed
by the row numbers of its neighbours. Its last eight bytes are a checksum, compared at every read.

The reads of a beam are announced with `posix_fadvise` before the first one, so the disk serves them
in parallel. Pages in the system's cache are only copied.
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

_CHUNK = 1024  # pages built at once
_WILLNEED = 3  # POSIX_FADV_WILLNEED
_HAS_FADVISE = sys.platform == "linux"

_pread = types.ExternalFunction(
    "pread", types.intp(types.int32, types.uintp, types.uintp, types.int64)
)
_fadvise = types.ExternalFunction(
    "posix_fadvise", types.int32(types.int32, types.int64, types.int64, types.int32)
)


class PageLayout:
    """The layout of a page of `page` bytes: `per_page` nodes of `node` bytes each.

    Args:
        width: Padded dimension of vectors.
        degree: Maximum neighbours of a node.
    """

    def __init__(self, width: int, degree: int) -> None:
        self.vector = 4 * width
        self.node = -(-(self.vector + 4 * degree) // 64) * 64
        self.page = -(-(self.node + 8) // PAGE) * PAGE
        self.per_page = (self.page - 8) // self.node

    def pages(self, rows: int) -> int:
        """Return the number of pages of `rows` rows."""
        return -(-rows // self.per_page)


@kernel
def _write_checksums(pages):  # type: ignore[no-untyped-def]
    """Write the checksum of each page (pages, bytes) into its last eight bytes."""
    end = pages.shape[1] - 8
    for i in range(pages.shape[0]):
        pages[i, end:].view(np.uint64)[0] = checksum(pages[i, :end])


def build_pages(
    rows: GraphRows, neighbours: NDArray[np.int32], layout: PageLayout
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pages of all rows in chunks of uint8 (pages, bytes)."""
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
        _write_checksums(pages)
        yield pages


@kernel
def read_pages(file, start, page, numbers, count, buffer):  # type: ignore[no-untyped-def]
    """Read pages into the rows of `buffer`; return -1, or the number of a damaged page.

    `file` is a descriptor, and `start` the offset of page 0 in it.
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
