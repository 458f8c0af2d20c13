"""Prompts as token ids, and conversations as prompts: chat templates, truncation."""
