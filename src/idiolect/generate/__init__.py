"""Generate text: decoding strategies."""
