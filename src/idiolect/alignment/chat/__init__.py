"""Conversations: read them, render them with a chat template, and fine-tune on the answers."""
