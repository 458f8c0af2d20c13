"""Encode queries with NumPy alone, so that a command need not wait for torch."""
