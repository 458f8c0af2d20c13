"""Read and write GGUF files, and keep their matrices quantised."""
