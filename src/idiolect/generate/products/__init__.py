"""Products of a network that writes text, which has few rows at a time."""
