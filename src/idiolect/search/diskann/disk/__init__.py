"""DiskANN with the vectors and the graph on disk."""
