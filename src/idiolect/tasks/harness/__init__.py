"""Few-shot evaluation on question files, by likelihood or by generation."""
