"""What a network's layers and heads know: probes, attention patterns, importance, anisotropy."""
