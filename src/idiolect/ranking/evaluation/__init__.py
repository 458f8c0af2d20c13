"""Measure rankings: metrics, significance tests, judged collections, baselines."""
