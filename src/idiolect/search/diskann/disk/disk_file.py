"""Write the file of a disk graph from nodes that are computed while they are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.array_file import StreamedArray, write_arrays
from idiolect.search.diskann.disk.pages import Nodes, PageLayout, build_pages
from idiolect.search.diskann.graph_rows import padded_width

__all__ = ["DISK_KIND", "DISK_VERSION", "DiskFile"]

DISK_KIND, DISK_VERSION = "disk graph", 2


@dataclass(frozen=True)
class DiskFile:
    """What a file of a disk graph says about it."""

    metric: int
    dimension: int
    degree: int
    entry: int
    rows: int

    def write(
        self,
        path: str | Path,
        codes: Mapping[str, NDArray[Any] | StreamedArray],
        nodes: Iterable[Nodes],
        alive: NDArray[np.bool_] | None = None,
    ) -> None:
        """Write the file atomically.

        Args:
            path: The file.
            codes: The arrays that stay in memory during a search.
            nodes: All nodes in order, in chunks; see `build_pages`.
            alive: bool (rows,), which rows are not deleted; all by default.

        Raises:
            InputError: the file cannot be written.
        """
        layout = PageLayout(padded_width(self.dimension), self.degree)
        shape = (layout.pages(self.rows), layout.page)
        arrays: dict[str, NDArray[Any] | StreamedArray] = {
            "alive": np.ones(self.rows, np.bool_) if alive is None else alive,
            **codes,
            "pages": StreamedArray(np.dtype(np.uint8), shape, build_pages(nodes, layout)),
        }
        facts = {
            "metric": self.metric,
            "dimension": self.dimension,
            "degree": self.degree,
            "entry": self.entry,
        }
        write_arrays(path, DISK_KIND, DISK_VERSION, facts, arrays)
