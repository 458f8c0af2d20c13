"""Find the words a tokenizer breaks, teach it those words, and prove nothing else changed."""
