"""Tokenizers: text to ids and back, and how vocabularies are learned from text."""
