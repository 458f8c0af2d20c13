"""Word vectors: word2vec, fastText n-grams and GloVe, and every evaluation of them."""
