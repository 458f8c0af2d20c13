"""Recommenders without a network: counts, factors, texts, and combinations of recommenders."""
