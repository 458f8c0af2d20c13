"""Recommendation from interaction histories: baselines, sequence networks, evaluation, serving."""
