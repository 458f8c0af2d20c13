"""The HTTP server: search, encoding, generation and a web page for one run, index or model."""
