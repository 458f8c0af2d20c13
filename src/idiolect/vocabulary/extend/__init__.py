"""Add terms to a tokenizer, and verify that other text is unchanged."""
