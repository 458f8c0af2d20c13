"""Train ranking models, rerank search results, and evaluate rankings."""
