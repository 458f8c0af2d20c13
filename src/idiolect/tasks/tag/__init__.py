"""Tag spans of texts, such as names: tag schemes, files, tagger, CRF, baseline and metrics."""
