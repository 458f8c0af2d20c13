"""Search: the index, the embedded store, DiskANN, and the same store on a Milvus cluster."""
