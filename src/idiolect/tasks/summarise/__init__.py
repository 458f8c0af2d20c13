"""Summarise texts with decoders and encoder-decoders: files, summariser, baselines and ROUGE."""
