"""Evaluate rankings: metrics, paired tests, test collections and baselines."""
