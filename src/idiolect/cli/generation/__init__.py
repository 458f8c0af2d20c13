"""Commands that generate text, and that evaluate models on question files."""
