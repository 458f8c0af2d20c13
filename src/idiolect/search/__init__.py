"""Find: the embedded store, words and vectors together, and the road to a cluster."""
