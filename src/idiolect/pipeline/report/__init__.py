"""A run told to people: one HTML file that stands alone, without a network."""
