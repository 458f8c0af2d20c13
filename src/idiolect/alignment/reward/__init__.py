"""Reward models: train them on preferences, and measure them."""
