"""Find the tokens that start a word, by the markers in the pieces of a vocabulary.

    WordPiece        "##" marks a continuation of a word
    byte-level BPE   "Ġ" and other white space mark a start
    SentencePiece    "▁" marks a start
    BPE with "</w>"  the suffix marks an end, so the next token is a start (GPT-1, XLM)
    whole words      every piece is a start

Added tokens, such as new terms, start a word; pieces that continue the word belong to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["WordStarts", "word_starts"]


class WordStarts:
    """Marks the tokens of texts that start a word.

    Args:
        tokenizer: The tokenizer of the texts.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._starts, self._ends = word_starts(tokenizer), None
        if suffix := getattr(tokenizer.engine.model, "end_of_word_suffix", None):
            self._ends = np.zeros(len(tokenizer), np.bool_)
            for piece, id_ in tokenizer.engine.get_vocab(with_added_tokens=True).items():
                self._ends[id_] = piece.endswith(suffix)
            self._ends[self._starts] = True  # added tokens

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which tokens start a word. Shape: (…, length), as `ids`."""
        found: NDArray[np.bool_] = self._starts[ids]
        if self._ends is not None:
            found[..., :1] = True
            found[..., 1:] |= self._ends[ids[..., :-1]]
        return found


def word_starts(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Return whether each id starts a word wherever it is. The first token of a text always does.

    Shape: (ids,), bool.
    """
    vocabulary = tokenizer.engine.get_vocab(with_added_tokens=True)
    prefix = getattr(tokenizer.engine.model, "continuing_subword_prefix", None)
    suffix = getattr(tokenizer.engine.model, "end_of_word_suffix", None)
    marks = _marks(tokenizer, vocabulary)
    starts = np.ones(len(tokenizer), np.bool_)
    for piece, id_ in vocabulary.items():
        if prefix:
            starts[id_] = not piece.startswith(prefix)
        elif suffix:
            starts[id_] = False
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
