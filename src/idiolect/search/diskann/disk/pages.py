"""The pages of a disk graph: a node's vector and neighbours together, so that one read gets both.

A page is 4,096 bytes, or a multiple for wide vectors. It holds whole nodes, each a vector followed
by the row numbers of its neighbours. Its last eight bytes are a checksum, compared at every read.

The reads of a beam are announced with `posix_fadvise` before the first one, so the disk serves them
in parallel. Pages in the page cache are only copied.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import numpy as np
from numba import types
from numpy.typing import NDArray

from idiolect.search.diskann.array_file import PAGE, checksum
from idiolect.search.diskann.jit import kernel

__all__ = ["Nodes", "PageLayout", "build_pages", "pread", "read_pages", "unpack_nodes"]

Nodes = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Vectors (m, padded dimension) and neighbours (m, degree), padded with -1."""


_CHUNK = 1024  # pages built at once
_WILLNEED = 3  # POSIX_FADV_WILLNEED
_HAS_FADVISE = sys.platform == "linux"

pread = types.ExternalFunction(
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
        self.degree = degree
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


def build_pages(nodes: Iterable[Nodes], layout: PageLayout) -> Iterator[NDArray[np.uint8]]:
    """Yield the pages of nodes in chunks of uint8 (pages, bytes).

    Args:
        nodes: Consecutive nodes in chunks of any length: vectors float32 (m, padded dimension) and
            neighbours int32 (m, degree).
        layout: The layout of the pages.
    """
    rest = np.empty((0, layout.node), np.uint8)
    for vectors, neighbours in nodes:
        bytes_ = np.zeros((len(vectors), layout.node), np.uint8)
        bytes_[:, : layout.vector] = np.ascontiguousarray(vectors).view(np.uint8)
        end = layout.vector + 4 * neighbours.shape[1]
        bytes_[:, layout.vector : end] = np.ascontiguousarray(neighbours).view(np.uint8)
        rest = np.concatenate([rest, bytes_]) if len(rest) else bytes_
        whole = len(rest) // layout.per_page * layout.per_page
        for start in range(0, whole, _CHUNK * layout.per_page):
            yield _to_pages(rest[start : min(start + _CHUNK * layout.per_page, whole)], layout)
        rest = rest[whole:]
    if len(rest):
        yield _to_pages(rest, layout)


def _to_pages(nodes: NDArray[np.uint8], layout: PageLayout) -> NDArray[np.uint8]:
    pages = np.zeros((layout.pages(len(nodes)), layout.page), np.uint8)
    filled = np.zeros((len(pages) * layout.per_page, layout.node), np.uint8)
    filled[: len(nodes)] = nodes
    pages[:, : layout.node * layout.per_page] = filled.reshape(len(pages), -1)
    _write_checksums(pages)
    return pages


def unpack_nodes(pages: NDArray[np.uint8], layout: PageLayout) -> Nodes:
    """Return the vectors and neighbours of all nodes of pages (pages, bytes)."""
    nodes = pages[:, : layout.node * layout.per_page].reshape(-1, layout.node)
    vectors = np.ascontiguousarray(nodes[:, : layout.vector]).view(np.float32)
    edges = nodes[:, layout.vector : layout.vector + 4 * layout.degree]
    return vectors, np.ascontiguousarray(edges).view(np.int32)


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
        got = pread(
            np.int32(file), np.uintp(buffer.ctypes.data + i * page), np.uintp(page),
            np.int64(start + numbers[i] * page),
        )  # fmt: skip
        whole = buffer[i]
        end = page - 8
        if got != page or whole[end:].view(np.uint64)[0] != checksum(whole[:end]):
            return numbers[i]
    return np.int64(-1)
