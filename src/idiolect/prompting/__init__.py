"""Prompts: templates, demonstrations, calibration, votes, search, and tuning."""
