"""DiskANN: graph-based approximate nearest neighbours (Subramanya et al. 2019).

`Graph` holds vectors and graph in memory; `DiskGraph` reads them from disk. They are imported on
first use (PEP 562), with numba: a store without graphs needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idiolect.search.diskann.disk.disk_graph import DiskGraph
    from idiolect.search.diskann.graph import Graph

__all__ = ["DiskGraph", "Graph"]

_MODULES = {
    "DiskGraph": "idiolect.search.diskann.disk.disk_graph",
    "Graph": "idiolect.search.diskann.graph",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
