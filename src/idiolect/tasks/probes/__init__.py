"""Analyse layers and heads: probes, attention patterns, head importance, anisotropy."""
