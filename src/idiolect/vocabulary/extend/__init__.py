"""Add terms to a tokenizer, and verify that nothing else changed."""
