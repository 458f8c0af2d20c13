"""Texts to the ids an encoder's network reads: instructions, cutting, and batches by tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idiolect.errors import ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.packed_documents import TextTemplate

__all__ = ["EncodingCounts", "TextReader", "by_length", "check_length", "check_texts"]

_UNBOUNDED = 512
_TELL = logging.getLogger(__name__)

_NAMES = {"document": ("document", "passage", "corpus"), "query": ("query",)}
"""What models call the instructions for the two kinds of text that every search has."""


@dataclass
class EncodingCounts:
    """What was met while encoding; adds up over the calls it is given to."""

    texts: int = 0
    """Texts encoded."""
    tokens: int = 0
    """Tokens read, those of the template counted."""
    truncated: int = 0
    """Texts that were cut."""
    lost: int = 0
    """Tokens that were cut off."""
    empty: int = 0
    """Texts without a token of their own; their vectors are zero."""

    def add(self, other: EncodingCounts) -> None:
        """Add what another counted."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def tell(self, length: int) -> None:
        """Warn of texts that were cut after so many tokens, and of empty ones."""
        if self.truncated:
            _TELL.warning(
                "%d of %d texts are longer than %d tokens and were cut; %d tokens were not read",
                *(self.truncated, self.texts, length, self.lost),
            )
        if self.empty:
            _TELL.warning(
                "%d of %d texts are empty; their vectors are zero", self.empty, self.texts
            )


class TextReader:
    """Makes a row of ids of each text.

    Args:
        tokenizer: The tokenizer, whose template frames each text.
        length: Ids a row may have; what is beyond it is cut off the end of the text.
        twice: Whether a text is to stand in its row two times (echo).
        instructions: Text put before a text, by the kind of text.
        default_kind: The kind of texts whose kind is not told.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        length: int,
        *,
        twice: bool,
        instructions: Mapping[str, str],
        default_kind: str | None,
    ) -> None:
        self.frame = TextTemplate.of(tokenizer, causal=False)
        self._tokenizer = tokenizer
        self._times = 2 if twice else 1
        self._room = (length - len(self.frame.before) - len(self.frame.after)) // self._times
        self._instructions = instructions
        self._default_kind = default_kind

    def read(
        self, texts: Sequence[str], kind: str | None, counts: EncodingCounts
    ) -> list[list[int]]:
        """Return a row for each text, without ids for an empty one, and count.

        Raises:
            InputError: One text instead of several, something that is no text, or an unknown kind.
        """
        check_texts(texts)
        instruction = self._instruction(kind)
        whole = [instruction + text for text in texts] if instruction else texts
        rows = self._tokenizer.encode_batch(whole, special_tokens=False)
        before, after = list(self.frame.before), list(self.frame.after)
        for number, row in enumerate(rows):
            if not row or not texts[number].strip():
                counts.empty += 1
                rows[number] = []
                continue
            if len(row) > self._room:
                counts.truncated += 1
                counts.lost += len(row) - self._room
                del row[self._room :]
            rows[number] = before + row * self._times + after
            counts.tokens += len(rows[number])
        counts.texts += len(rows)
        return rows

    def _instruction(self, kind: str | None) -> str:
        kind = self._default_kind if kind is None else kind
        if kind is None:
            return ""
        for name in _NAMES.get(kind, (kind,)):
            if name in self._instructions:
                return self._instructions[name]
        if kind in _NAMES:
            return ""
        known = sorted({*self._instructions, *_NAMES})
        raise InputError(f"unknown kind of text {kind!r}", hint="one of " + ", ".join(known))


def by_length(rows: Sequence[Sequence[int]], tokens: int) -> Iterator[list[int]]:
    """Batch the rows that have ids, longest first, so that memory is needed at once or never.

    >>> list(by_length([[1], [1, 2, 3], [], [1, 2]], 4))
    [[1], [3, 0]]

    Args:
        rows: The ids of each text.
        tokens: At most so many are in a batch, padding counted; one row is always taken.

    Yields:
        The numbers of the rows of a batch.
    """
    order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: -len(rows[i]))
    start = 0
    while start < len(order):
        count = max(tokens // len(rows[order[start]]), 1)
        yield order[start : start + count]
        start += count


def check_length(model: LanguageModel, length: int | None) -> int:
    """Return how many tokens a text may have: as many as are asked for, or as are named.

    Raises:
        ConfigError: The model has no positions for so many.
    """
    config = model.network.config
    rows = config.max_positions if config.position in ("learned", "untied") else None
    if length is not None:
        if length < 4 or (rows is not None and length > rows):
            raise ConfigError(
                f"a length of {length} tokens; the model has {rows or 'unbounded'} positions",
                hint="at least 4, and no more than there are positions",
            )
        return length
    named: Any = model.tokenizer.settings.get("model_max_length")
    # transformers writes 10^30 where nobody knows.
    told = [n for n in (named, config.max_positions) if isinstance(n, int) and 0 < n < 10**9]
    return min(told, default=_UNBOUNDED)


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no list of texts.

    Raises:
        InputError: It is one text, or holds something else.
    """
    if isinstance(texts, str):
        raise InputError("several texts are wanted, not one", hint="put it into a list")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {number} is a {type(text).__name__}", hint="give strings")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"text {number} holds half of a surrogate pair",
                hint="it was decoded wrongly; read its source as UTF-8",
            ) from None
