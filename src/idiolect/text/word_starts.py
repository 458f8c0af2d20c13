"""Find the ids of a vocabulary that start a word, by the markers in their pieces.

    WordPiece        "##" marks a continuation of a word
    byte-level BPE   "Ġ" and other white space mark a start
    SentencePiece    "▁" marks a start
    whole words      every piece is a start

Added tokens, such as new terms, start a word; pieces that continue the word belong to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["word_starts"]


def word_starts(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Return whether each id starts a word. The first token of a text always does.

    Shape: (ids,), bool.
    """
    vocabulary = tokenizer.engine.get_vocab(with_added_tokens=True)
    prefix = getattr(tokenizer.engine.model, "continuing_subword_prefix", None)
    marks = _marks(tokenizer, vocabulary)
    starts = np.ones(len(tokenizer), np.bool_)
    for piece, id_ in vocabulary.items():
        if prefix:
            starts[id_] = not piece.startswith(prefix)
        elif marks:
            starts[id_] = piece.startswith(marks)
    record = tokenizer.extension
    whole = [] if record is None else [one.id for one in record.added if one.kind != "part"]
    whole += tokenizer.engine.get_added_tokens_decoder()
    starts[whole] = True
    return starts


def _marks(tokenizer: Tokenizer, vocabulary: dict[str, int]) -> tuple[str, ...]:
    """Return the characters that mark the start of a word; none if every piece is a word."""
    if tokenizer.kind == "byte-bpe":
        # The characters that represent the bytes of white space.
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(" \n\t\r")
        return tuple({letter for piece, _ in letters for letter in piece})
    return ("▁",) if any(piece.startswith("▁") for piece in vocabulary) else ()
