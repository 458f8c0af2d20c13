"""When a run stops: by a signal, or because validation no longer improves."""
