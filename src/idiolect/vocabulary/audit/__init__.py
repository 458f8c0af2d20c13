"""Which terms a tokenizer breaks, and which of them are worth adding."""
