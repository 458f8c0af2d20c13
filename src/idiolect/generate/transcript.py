"""Incremental detokenization: the final part of a growing text, and detection of stop strings."""

from __future__ import annotations

from collections.abc import Sequence

from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["Transcript", "ends_with_stop"]

_INCOMPLETE = "\ufffd"


def ends_with_stop(tokenizer: Tokenizer, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Return whether the last tokens complete a stop string, which may end inside a token."""
    if not stop:
        return False
    # A character has at most four tokens (bytes); special tokens have no characters.
    tail = tokenizer.decode(ids[-(4 * max(map(len, stop)) + 8) :])
    return any(text in tail for text in stop)


class Transcript:
    """The text of a row, decoded as tokens arrive.

    Text is released once it is final: complete characters that cannot be part of a stop string.

    Args:
        tokenizer: The tokenizer.
        stop: Stop strings, which end the row. They are removed.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._ids: list[int] = []
        self._begin = self._read = 0
        self._text = ""
        self._released = 0
        self.stopped = False
        """Whether a stop string was found."""

    def add(self, token: int) -> str:
        """Add a token; return the newly final text."""
        self._ids.append(token)
        # Decoding starts a few tokens back, since some decoders strip the first token's space.
        known, text = self._tokenizer.decode_batch(
            [self._ids[self._begin : self._read], self._ids[self._begin :]]
        )
        if len(text) > len(known) and not text.endswith(_INCOMPLETE):
            self._text += text[len(known) :]
            self._begin, self._read = self._read, len(self._ids)
        self._cut()
        return self._release(len(self._text) - self._held_back())

    def finish(self) -> str:
        """Return the rest of the text."""
        if not self.stopped:
            known, text = self._tokenizer.decode_batch(
                [self._ids[self._begin : self._read], self._ids[self._begin :]]
            )
            self._text += text[len(known) :]
            self._cut()
        return self._release(len(self._text))

    @property
    def text(self) -> str:
        """The text so far, up to a stop string."""
        return self._text

    def _cut(self) -> None:
        places = [place for text in self._stop if (place := self._text.find(text)) >= 0]
        if places:
            self.stopped, self._text = True, self._text[: min(places)]

    def _held_back(self) -> int:
        """Return the number of characters at the end that may start a stop string."""
        if self.stopped:
            return 0
        longest = max(map(len, self._stop), default=0)
        for count in range(min(longest - 1, len(self._text)), 0, -1):
            if any(text.startswith(self._text[-count:]) for text in self._stop):
                return count
        return 0

    def _release(self, end: int) -> str:
        new = self._text[self._released : end]
        self._released = max(self._released, end)
        return new
