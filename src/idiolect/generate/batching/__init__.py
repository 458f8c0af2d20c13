"""Continuous batching: texts that join and leave a batch as they begin and end."""
