"""Hybrid search over vectors and words, in an embedded store or a Milvus cluster."""
