"""DiskANN with vectors and neighbours in pages on disk."""
