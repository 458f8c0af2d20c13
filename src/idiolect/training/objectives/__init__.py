"""Training objectives, one per file, found by name in one registry."""
