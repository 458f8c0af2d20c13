"""Few-shot evaluation: questions in files, answered by likelihood or by generation."""
