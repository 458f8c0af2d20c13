"""Answers from an index: passages found, an answer written or quoted, its sources verified."""
