"""`idiolect words`: train, query and evaluate word vectors."""
