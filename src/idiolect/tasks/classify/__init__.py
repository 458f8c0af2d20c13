"""Classify texts and pairs of texts: data, classifier, baselines and metrics."""
