"""Tokenizers in GGUF files: read from their metadata, and written to it."""
