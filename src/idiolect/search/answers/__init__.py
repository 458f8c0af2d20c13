"""Answers from an index: find passages, write or quote an answer, verify its citations (RAG)."""
