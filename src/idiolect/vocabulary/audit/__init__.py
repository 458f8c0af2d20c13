"""Measure a tokenizer on a corpus, and choose the terms worth adding."""
