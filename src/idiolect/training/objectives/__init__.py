"""What a run minimises: one file an objective, found by name in one registry."""
