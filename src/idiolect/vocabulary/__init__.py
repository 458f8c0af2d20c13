"""Audit a tokenizer, extend it with domain terms, and train embedding rows for them."""
