"""Scaling to many machines: audit, encode, index and evaluate on Ray; files in object stores."""
