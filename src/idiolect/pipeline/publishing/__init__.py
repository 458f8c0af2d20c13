"""Publish what a run trained on the Hugging Face hub, with a card that is written from the run."""
