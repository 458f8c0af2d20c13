"""Special tokens around texts and around pairs of texts."""
