"""Read text: records and their fields, corpora, model files, and tokenizers."""
