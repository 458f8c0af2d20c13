"""Convert texts to rows of ids: prompts, truncation, and batching by number of tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from idiolect.errors import ConfigError, InputError
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.word_cache import WordCache

if TYPE_CHECKING:
    from idiolect.models.language_model import LanguageModel
from idiolect.text.templates.text_template import TextTemplate

__all__ = ["EncodingCounts", "TextReader", "by_length", "check_length", "check_texts"]

_DEFAULT_LENGTH = 512
_UNLIMITED = 1 << 30
"""Maximum tokens of a text for a static model, which has no limit of its own."""
_LOG = logging.getLogger(__name__)

_PROMPT_NAMES = {"document": ("document", "passage", "corpus"), "query": ("query",)}
"""The names that models use for the prompts of documents and queries."""


@dataclass
class EncodingCounts:
    """Counts of texts and tokens, summed over all calls that they are passed to."""

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

    def add_to(self, others: EncodingCounts | None, max_length: int) -> None:
        """Add these counts to `others`, or log a warning if that is None; see `warn`."""
        if others is None:
            self.warn(max_length)
        else:
            others.add(self)

    def warn(self, max_length: int) -> None:
        """Log a warning about texts truncated to `max_length` tokens, and about empty ones."""
        if self.truncated:
            _LOG.warning(
                "%d of %d texts are longer than %d tokens and were truncated; %d tokens are lost",
                *(self.truncated, self.texts, max_length, self.lost),
            )
        if self.empty:
            _LOG.warning("%d of %d texts are empty; their vectors are zero", self.empty, self.texts)


class TextReader:
    """Converts texts to rows of ids.

    Args:
        tokenizer: The tokenizer, which adds the special tokens.
        max_length: Maximum ids of a row; longer texts are truncated at the end.
        repeat: Number of copies of the text in a row; 2 for echo pooling.
        prompts: Prompts by name; a prompt is prepended to a text.
        default_prompt_name: Name of the prompt for texts without one.
        add_special_tokens: Whether to add those of the tokenizer's template.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int,
        *,
        repeat: int,
        prompts: Mapping[str, str],
        default_prompt_name: str | None,
        add_special_tokens: bool = True,
    ) -> None:
        self.template = (
            TextTemplate.of(tokenizer, causal=False) if add_special_tokens else TextTemplate((), ())
        )
        self._tokenizer, self._words = tokenizer, WordCache(tokenizer)
        self._repeat = repeat
        self._capacity = (
            max_length - len(self.template.before) - len(self.template.after)
        ) // self._repeat
        self._prompts = prompts
        self._default_prompt_name = default_prompt_name

    def read(
        self, texts: Sequence[str], prompt_name: str | None, counts: EncodingCounts
    ) -> list[list[int]]:
        """Return a row for each text, an empty one for an empty text, and update the counts.

        Raises:
            InputError: A single text, an element that is not a text, or an unknown prompt name.
        """
        check_texts(texts)
        head, prompt = self._parse(self._prompt(prompt_name))
        prompted = [prompt + text for text in texts] if prompt else texts
        rows = self._words.encode(prompted)
        for number, row in enumerate(rows):
            is_empty = not row or not texts[number].strip()
            rows[number] = self.read_ids([] if is_empty else head + row, counts)
        return rows

    def read_ids(self, ids: Sequence[int], counts: EncodingCounts) -> list[int]:
        """Return the row of a text that is given as ids without special tokens and prompt."""
        counts.texts += 1
        if not ids:
            counts.empty += 1
            return []
        row = list(ids)
        if len(row) > self._capacity:
            counts.truncated += 1
            counts.lost += len(row) - self._capacity
            del row[self._capacity :]
        row = [*self.template.before, *(row * self._repeat), *self.template.after]
        counts.tokens += len(row)
        return row

    @property
    def prompts_have_special_tokens(self) -> bool:
        """Whether a prompt names a special token. Texts cannot: they are data."""
        return any(self._parse(prompt)[0] for prompt in self._prompts.values())

    def _parse(self, prompt: str) -> tuple[list[int], str]:
        """Return the ids of a prompt up to its last special token, and the rest of its text."""
        tokenizer = self._tokenizer
        special = {*tokenizer.special_tokens.values()} - {tokenizer.unk_token_id}
        if not any(name in prompt for name in tokenizer.special_tokens):
            return [], prompt
        [(ids, offsets)] = tokenizer.encode_with_offsets(
            [prompt], add_special_tokens=False, parse_special_tokens=True
        )
        end = max((i + 1 for i, id_ in enumerate(ids) if id_ in special), default=0)
        return ids[:end], prompt[offsets[end - 1][1] if end else 0 :]

    def _prompt(self, prompt_name: str | None) -> str:
        if prompt_name is None:
            prompt_name = self._default_prompt_name
        if prompt_name is None:
            return ""
        for name in _PROMPT_NAMES.get(prompt_name, (prompt_name,)):
            if name in self._prompts:
                return self._prompts[name]
        if prompt_name in _PROMPT_NAMES:
            return ""
        known = sorted({*self._prompts, *_PROMPT_NAMES})
        raise InputError(f"unknown prompt {prompt_name!r}", hint="one of " + ", ".join(known))


def by_length(rows: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    """Batch the rows that have ids, longest first, so that memory peaks in the first batch.

    >>> list(by_length([[1], [1, 2, 3], [], [1, 2]], 4))
    [[1], [3, 0]]

    Args:
        rows: The ids of each text.
        max_tokens: Maximum tokens of a batch, including padding; a batch has at least one row.

    Yields:
        The row numbers of a batch.
    """
    order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: -len(rows[i]))
    start = 0
    while start < len(order):
        count = max(max_tokens // len(rows[order[start]]), 1)
        yield order[start : start + count]
        start += count


def check_length(model: LanguageModel, max_length: int | None) -> int:
    """Return the maximum tokens of a text: `max_length`, or the default of model and tokenizer.

    Raises:
        ConfigError: The model does not have that many positions.
    """
    config, taken = model.network.config, model.network.virtual_tokens
    rows = config.max_position_embeddings - taken if config.has_position_table else None
    if max_length is not None and rows is not None and rows < max_length <= rows + taken:
        max_length = rows  # virtual tokens that were added later use the other positions
    if max_length is not None:
        if max_length < 4 or (rows is not None and max_length > rows):
            raise ConfigError(
                f"max_length is {max_length}, and the model has {rows or 'unbounded'} positions",
                hint="choose at least 4, and at most the number of positions",
            )
        return max_length
    if model.network.context_free:
        return _UNLIMITED
    named: Any = model.tokenizer.settings.get("model_max_length")
    # transformers writes 10^30 for "unknown".
    known = [
        n for n in (named, config.max_position_embeddings) if isinstance(n, int) and 0 < n < 10**9
    ]
    return max(4, min(known) - taken) if known else _DEFAULT_LENGTH


def check_texts(texts: Sequence[str]) -> None:
    """Check a list of texts.

    Raises:
        InputError: It is a single text, or an element is not a valid text.
    """
    if isinstance(texts, str):
        raise InputError("expected a list of texts, not one text", hint="pass [text]")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {number} is a {type(text).__name__}", hint="pass strings")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"text {number} holds an unpaired surrogate",
                hint="its source was decoded wrongly; decode it as UTF-8",
            ) from None
