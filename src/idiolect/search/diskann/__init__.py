"""DiskANN: nearest neighbours by a graph, in memory and on disk (Subramanya et al. 2019)."""

from idiolect.search.diskann.disk.disk_graph import DiskGraph
from idiolect.search.diskann.graph import Graph

__all__ = ["DiskGraph", "Graph"]
