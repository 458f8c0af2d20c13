"""A paged key/value cache, for continuous batching: texts join and leave a running batch."""
