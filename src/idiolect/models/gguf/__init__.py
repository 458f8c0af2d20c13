"""GGUF files: read, kept in their blocks, and written."""
