"""Prompts: templates, demonstrations, calibration, voting, search, and prompt tuning."""
