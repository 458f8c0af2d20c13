"""Downstream tasks: train models for them, and measure models on them."""
