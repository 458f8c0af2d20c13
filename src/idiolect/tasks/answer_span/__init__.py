"""Find the answer to a question as a span of a passage: SQuAD files, finder and measures."""
