"""Sentences and their translations: retrieval, mining by margin, and parallel text."""
