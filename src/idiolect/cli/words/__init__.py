"""`idiolect words`: train, ask and evaluate word vectors."""
