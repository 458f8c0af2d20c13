"""Texts to rows of ids: prompts, truncation, and batches by number of tokens."""

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

_DEFAULT_LENGTH = 512
_LOG = logging.getLogger(__name__)

_PROMPT_NAMES = {"document": ("document", "passage", "corpus"), "query": ("query",)}
"""The names that models use for the prompts of documents and queries."""


@dataclass
class EncodingCounts:
    """Counts of texts and tokens; they add up over all calls they are passed to."""

    texts: int = 0
    """Texts encoded."""
    tokens: int = 0
    """Tokens encoded, including special tokens."""
    truncated: int = 0
    """Truncated texts."""
    lost: int = 0
    """Tokens removed by truncation."""
    empty: int = 0
    """Texts without tokens; their vectors are zero."""

    def add(self, other: EncodingCounts) -> None:
        """Add other counts."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def warn(self, length: int) -> None:
        """Log a warning about texts truncated to `length` tokens, and about empty ones."""
        if self.truncated:
            _LOG.warning(
                "%d of %d texts are longer than %d tokens and were truncated; %d tokens are lost",
                *(self.truncated, self.texts, length, self.lost),
            )
        if self.empty:
            _LOG.warning("%d of %d texts are empty; their vectors are zero", self.empty, self.texts)


class TextReader:
    """Converts texts to rows of ids.

    Args:
        tokenizer: The tokenizer, which adds the special tokens.
        length: Maximum ids of a row; longer texts are truncated at the end.
        twice: Whether a row holds its text two times (echo).
        instructions: Prompts by name; a prompt is prepended to a text.
        default_kind: Name of the prompt for texts without one.
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
        self._capacity = (length - len(self.frame.before) - len(self.frame.after)) // self._times
        self._instructions = instructions
        self._default_kind = default_kind

    def read(
        self, texts: Sequence[str], kind: str | None, counts: EncodingCounts
    ) -> list[list[int]]:
        """Return a row for each text, an empty one for an empty text, and update the counts.

        Raises:
            InputError: A single text, an element that is not a text, or an unknown prompt name.
        """
        check_texts(texts)
        prompt = self._prompt(kind)
        prompted = [prompt + text for text in texts] if prompt else texts
        rows = self._tokenizer.encode_batch(prompted, add_special_tokens=False)
        before, after = list(self.frame.before), list(self.frame.after)
        for number, row in enumerate(rows):
            if not row or not texts[number].strip():
                counts.empty += 1
                rows[number] = []
                continue
            if len(row) > self._capacity:
                counts.truncated += 1
                counts.lost += len(row) - self._capacity
                del row[self._capacity :]
            rows[number] = before + row * self._times + after
            counts.tokens += len(rows[number])
        counts.texts += len(rows)
        return rows

    def _prompt(self, kind: str | None) -> str:
        kind = self._default_kind if kind is None else kind
        if kind is None:
            return ""
        for name in _PROMPT_NAMES.get(kind, (kind,)):
            if name in self._instructions:
                return self._instructions[name]
        if kind in _PROMPT_NAMES:
            return ""
        known = sorted({*self._instructions, *_PROMPT_NAMES})
        raise InputError(f"unknown prompt {kind!r}", hint="one of " + ", ".join(known))


def by_length(rows: Sequence[Sequence[int]], tokens: int) -> Iterator[list[int]]:
    """Batch the rows that have ids, longest first, so that memory peaks in the first batch.

    >>> list(by_length([[1], [1, 2, 3], [], [1, 2]], 4))
    [[1], [3, 0]]

    Args:
        rows: The ids of each text.
        tokens: Maximum tokens of a batch, including padding; a batch has at least one row.

    Yields:
        The row numbers of a batch.
    """
    order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: -len(rows[i]))
    start = 0
    while start < len(order):
        count = max(tokens // len(rows[order[start]]), 1)
        yield order[start : start + count]
        start += count


def check_length(model: LanguageModel, length: int | None) -> int:
    """Return the maximum tokens of a text: `length`, or the default of model and tokenizer.

    Raises:
        ConfigError: The model does not have that many positions.
    """
    config = model.network.config
    rows = config.max_position_embeddings if config.position in ("learned", "untied") else None
    if length is not None:
        if length < 4 or (rows is not None and length > rows):
            raise ConfigError(
                f"a length of {length} tokens; the model has {rows or 'unbounded'} positions",
                hint="at least 4, and at most the number of positions",
            )
        return length
    named: Any = model.tokenizer.settings.get("model_max_length")
    # transformers writes 10^30 for "unknown".
    known = [
        n for n in (named, config.max_position_embeddings) if isinstance(n, int) and 0 < n < 10**9
    ]
    return min(known, default=_DEFAULT_LENGTH)


def check_texts(texts: Sequence[str]) -> None:
    """Check a list of texts.

    Raises:
        InputError: It is a single text, or an element is not a valid text.
    """
    if isinstance(texts, str):
        raise InputError("expected a list of texts, not one text", hint="put it into a list")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {number} is a {type(text).__name__}", hint="give strings")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"text {number} holds an unpaired surrogate",
                hint="its source was decoded wrongly; decode it as UTF-8",
            ) from None
