"""Matrix products with few rows, as in token-by-token generation."""
