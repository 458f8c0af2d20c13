"""Reward models: learn to score answers from preferences, and measure how well they do."""
