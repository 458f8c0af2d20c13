"""`FlatVectors`: vectors in a plain file, read in parts, for sets that do not fit into memory.

They are read with `pread`, not through a memory map, so they do not count as memory of the process.
The operating system still caches the file while memory is free.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.search.diskann.disk.pages import pread
from idiolect.search.diskann.graph_rows import padded_width
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.scalar_quantizer import aligned_zeros

__all__ = ["FlatVectors"]


@kernel
def _read_rows(file, start, rows, out):  # type: ignore[no-untyped-def]
    """Read rows of a file, from offset `start`, into `out`; return whether all were read."""
    size = 4 * out.shape[1]
    for i in range(rows.shape[0]):
        got = pread(
            np.int32(file), np.uintp(out.ctypes.data + i * size), np.uintp(size),
            np.int64(start + rows[i] * size),
        )  # fmt: skip
        if got != size:
            return False
    return True


class FlatVectors:
    """Vectors (rows, padded dimension) in a file without a header.

    Args:
        path: A file that `create` wrote, or an `.npy` file of float32 whose dimension needs no
            padding (a multiple of 16).
        dimension: Dimension of the vectors.
        offset: Offset of the first vector in the file, in bytes.
    """

    def __init__(self, path: Path, dimension: int, *, offset: int = 0) -> None:
        self.dimension = dimension
        self._width = padded_width(dimension)
        self._path = path
        self._offset = offset
        self._descriptor = os.open(path, os.O_RDONLY)
        self.rows = (os.fstat(self._descriptor).st_size - offset) // (4 * self._width)

    def __del__(self) -> None:
        self.close()

    @classmethod
    def create(
        cls, path: Path, dimension: int, chunks: Iterable[NDArray[np.float32]]
    ) -> FlatVectors:
        """Write vectors, in chunks (m, dimension).

        Raises:
            InputError: the disk is full, or the file cannot be written.
        """
        try:
            with path.open("xb") as file:
                for chunk in chunks:
                    padded = np.zeros((len(chunk), padded_width(dimension)), np.float32)
                    padded[:, :dimension] = chunk
                    file.write(padded.data)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        return cls(path, dimension)

    def close(self) -> None:
        """Close the file."""
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return consecutive vectors (stop - start, padded dimension)."""
        return self.gather(np.arange(start, stop))

    def gather(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the vectors (n, padded dimension) of rows.

        Raises:
            InputError: the file was truncated.
        """
        out = aligned_zeros(len(rows), self._width, np.float32)
        if not _read_rows(self._descriptor, self._offset, np.asarray(rows, np.int64), out):
            raise InputError(f"cannot read {self._path}", hint="build the index again")
        return out
