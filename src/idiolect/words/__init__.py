"""Word vectors: word2vec, fastText n-grams and GloVe, and their evaluation."""
