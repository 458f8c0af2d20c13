"""Commands that answer questions from an index, and evaluate the answers."""
