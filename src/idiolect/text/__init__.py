"""Text to ids and back: corpora, tokenizers, and how vocabularies are learnt."""
