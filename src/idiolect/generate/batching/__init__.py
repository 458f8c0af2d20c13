"""Continuous batching: sequences join and leave a running batch as they start and end."""
