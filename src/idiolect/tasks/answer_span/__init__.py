"""Extractive question answering: SQuAD files, answer finder and metrics."""
