"""Blocks: configuration, attention, positions, layers, the one Transformer, and its heads."""
