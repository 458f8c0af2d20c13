"""Text to vectors: pooling, precision, tuning on pairs."""
