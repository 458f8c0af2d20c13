"""The file of a disk graph: its header, writing it from streamed nodes, and validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.search.diskann.array_file import (
    ArrayFile,
    StreamedArray,
    fits_shape,
    write_arrays,
)
from idiolect.search.diskann.disk.label_edges import Labels
from idiolect.search.diskann.disk.pages import Nodes, PageLayout, build_pages
from idiolect.search.diskann.graph_rows import padded_width
from idiolect.search.diskann.metric import METRICS

__all__ = ["DISK_KIND", "DISK_VERSION", "DiskFile", "is_disk_graph"]

_WIDEST = 1 << 20  # maximum dimension of vectors, and maximum degree

DISK_KIND, DISK_VERSION = "disk graph", 3
"""Newest version of the format. Version 1 has no rotation of codes, and version 2 no labels."""


@dataclass(frozen=True)
class DiskFile:
    """The header of a disk graph's file."""

    metric: int
    dimension: int
    degree: int
    entry: int
    rows: int
    label_degree: int = 0
    """Maximum neighbours with the same label, stored after the others."""

    @property
    def layout(self) -> PageLayout:
        """The layout of the pages."""
        return PageLayout(padded_width(self.dimension), self.degree + self.label_degree)

    def write(
        self,
        path: str | Path,
        codes: Mapping[str, NDArray[Any] | StreamedArray],
        nodes: Iterable[Nodes],
        *,
        alive: NDArray[np.bool_] | None = None,
        labels: Labels | None = None,
    ) -> None:
        """Write the file atomically.

        Args:
            path: The file.
            codes: The arrays that stay in memory during a search.
            nodes: All nodes in order, in chunks; see `build_pages`.
            alive: bool (rows,), which rows are not deleted; all by default.
            labels: The labels of the rows, if nodes have neighbours with the same label.

        Raises:
            InputError: the file cannot be written.
        """
        layout = self.layout
        shape = (layout.pages(self.rows), layout.page)
        arrays: dict[str, NDArray[Any] | StreamedArray] = {
            "alive": np.ones(self.rows, np.bool_) if alive is None else alive,
            **codes,
            **({} if labels is None else {"labels": labels.of_rows, "entries": labels.entries}),
            "pages": StreamedArray(np.dtype(np.uint8), shape, build_pages(nodes, layout)),
        }
        facts = {
            "metric": self.metric,
            "dimension": self.dimension,
            "degree": self.degree,
            "entry": self.entry,
            "label_degree": self.label_degree,
        }
        write_arrays(path, DISK_KIND, DISK_VERSION, facts, arrays)


def is_disk_graph(file: ArrayFile) -> bool:
    """Return whether header and arrays are consistent; kernels do not check bounds."""
    facts = {"label_degree": 0, **file.facts}
    names = {"metric", "dimension", "degree", "entry", "label_degree"}
    if not names <= facts.keys() or not all(isinstance(facts[name], int) for name in names):
        return False
    codes = {"signs", "facts", "flips"} if "signs" in file else {"products", "centres"}
    optional = {"rotation"} if "rotation" in file else set()
    optional |= {"labels", "entries"} if facts["label_degree"] else set()
    arrays = {name: file.array(name) for name in ("alive", "pages", *codes, *optional)}
    if arrays["alive"].ndim != 1:
        return False
    count, dimension, degree = len(arrays["alive"]), facts["dimension"], facts["degree"]
    if not 0 < dimension < _WIDEST or not 0 <= degree < _WIDEST:
        return False
    if not 0 <= facts["label_degree"] < _WIDEST:
        return False
    layout = PageLayout(padded_width(dimension), degree + facts["label_degree"])
    centres = arrays.get("centres")
    parts, width = (0, 0) if centres is None or centres.ndim != 3 else centres.shape[:2]
    shapes: dict[str, tuple[Any, ...]] = {
        "alive": (np.bool_, None),
        "pages": (np.uint8, layout.pages(count), layout.page),
        "products": (np.uint8, count, parts),
        "centres": (np.float32, parts, None, 256),
        "rotation": (np.float32, dimension, parts * width),
        "signs": (np.uint64, count, -(-dimension // 64)),
        "facts": (np.float32, count, 2),
        "flips": (np.float32, None, dimension),
        "labels": (np.int32, count),
        "entries": (np.int64, None),
    }
    if centres is not None and (parts == 0 or parts != -(-dimension // max(width, 1))):
        return False
    if facts["label_degree"] and not _are_labels(arrays["labels"], arrays["entries"]):
        return False
    return (
        facts["metric"] in METRICS.values()
        and (-1 if count == 0 else 0) <= facts["entry"] < max(count, 1)
        and fits_shape(arrays, {name: shapes[name] for name in arrays})
    )


def _are_labels(labels: NDArray[Any], entries: NDArray[Any]) -> bool:
    """Return whether each label has an entry, which is a row of that label."""
    return bool(
        -1 <= labels.min(initial=-1) <= labels.max(initial=-1) < len(entries)
        and 0 <= entries.min(initial=0) <= entries.max(initial=0) < max(len(labels), 1)
        and len(labels) >= len(entries)
        and (labels[entries] == np.arange(len(entries))).all()
    )
