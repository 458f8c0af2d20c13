"""Text out of a model: how the next token is chosen."""
