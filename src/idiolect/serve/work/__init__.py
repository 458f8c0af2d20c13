"""Scheduling of work for models and the index: batches, thread pools and bounded queues."""
