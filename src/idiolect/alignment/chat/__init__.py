"""Conversations: reading them, rendering them, and fine-tuning on their answers."""
