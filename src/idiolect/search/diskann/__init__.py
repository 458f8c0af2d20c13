"""DiskANN: graph-based approximate nearest neighbours (Subramanya et al. 2019).

`Graph` holds vectors and graph in memory; `DiskGraph` reads them from disk.
"""

from idiolect.search.diskann.disk.disk_graph import DiskGraph
from idiolect.search.diskann.graph import Graph

__all__ = ["DiskGraph", "Graph"]
