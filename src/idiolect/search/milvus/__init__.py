"""The same store on a Milvus cluster."""
