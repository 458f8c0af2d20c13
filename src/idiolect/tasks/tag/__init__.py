"""Tag spans of texts, such as names: schemes of tags, files, tagger, CRF, baseline and measures."""
