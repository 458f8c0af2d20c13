"""`TextStream`: a text in pieces, as it is generated, and the finished text."""

from __future__ import annotations

from collections.abc import Iterator

from idiolect.generate.generation import Generation, TextRow
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["TextStream"]


class TextStream(Iterator[str]):
    """Yields the pieces of a text; see `Generator.stream`.

    Args:
        pieces: The pieces.
        row: The text.
        tokenizer: Its tokenizer.
    """

    def __init__(self, pieces: Iterator[str], row: TextRow, tokenizer: Tokenizer) -> None:
        self._pieces, self._row, self._tokenizer = pieces, row, tokenizer

    def __next__(self) -> str:
        """Return the next piece."""
        return next(self._pieces)

    @property
    def generation(self) -> Generation:
        """The text so far, with its ids and the reason why it ended."""
        return self._row.finished(self._tokenizer)

    @property
    def prompt_tokens(self) -> int:
        """Number of ids of the prompt."""
        return len(self._row.source)
