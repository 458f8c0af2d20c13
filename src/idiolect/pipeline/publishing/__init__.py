"""Publish a run's models on the Hugging Face hub, with a generated model card."""
