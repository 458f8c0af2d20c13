"""The HTTP server: search, encoding, generation and the page over one run, index or model."""
