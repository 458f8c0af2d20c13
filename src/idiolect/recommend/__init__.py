"""Recommendation from interaction histories: baselines, sequence models, evaluation, serving."""
