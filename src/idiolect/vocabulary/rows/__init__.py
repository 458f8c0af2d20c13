"""Embedding rows for new tokens: grown, initialised and distilled."""
