"""Grow, initialize and distill the embedding rows of new tokens."""
