"""`AnswerOptions`: how passages are found and an answer is written. Wrong values are errors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, get_args

from idiolect.errors import ConfigError
from idiolect.search.answers.support import PairScorer
from idiolect.search.index_search import Mode
from idiolect.text.suggestions import did_you_mean

__all__ = ["AnswerOptions"]


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """How an answer is made.

    Raises:
        ConfigError: A value is out of its range.
    """

    mode: Mode = "hybrid"
    """How passages are searched; see `Index.search`."""
    filter: Mapping[str, Any] | str | None = None
    """Only items whose metadata match; see `idiolect.search.filters`."""
    namespace: str = ""
    """Where to search."""
    exclude: Collection[str] = ()
    """Ids of items that are not read."""
    rerank: PairScorer | None = None
    """Scores pairs of the question and a passage, such as `CrossEncoder.score`; the passages with
    the largest scores are read."""
    candidates: int = 30
    """Passages that are reranked and diversified, at least."""
    mmr_diversity: float = 0.1
    """0 to 1: how much the passages should differ from one another."""

    model: Any = None
    """What writes: a `Generator`, a language model or its name, a `Writer` such as
    `EndpointWriter`, or None for sentences of the passages."""
    instructions: str | None = None
    """The system prompt; by default, to answer from the passages and to cite them."""
    max_prompt_tokens: int = 1024
    """Tokens of the prompt, at most."""
    max_new_tokens: int = 128
    """Tokens that the model writes, at most."""
    max_sentences: int = 2
    """Sentences of an answer without a model, at most."""

    min_confidence: float = 0.45
    """Below it, the index abstains; 0 answers always. See `answer_confidence`."""
    support: PairScorer | None = None
    """Scores statements and their evidence from 0 to 1; by their words by default."""
    min_support: float = 0.6
    """Lowest score of a statement that a passage supports."""
    only_supported: bool = True
    """Leave out sentences of the model that no passage supports."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Build options from keyword arguments.

        Raises:
            ConfigError: An unknown name; the message suggests a known one.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise ConfigError(f"unknown option {name}", hint=did_you_mean(name, known))
        return cls(**options)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(
                f"unknown mode {self.mode!r}", hint=did_you_mean(str(self.mode), get_args(Mode))
            )
        for name in ("rerank", "support"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise ConfigError(
                    f"{name} is {value!r:.60}", hint="it is a function that scores pairs of texts"
                )
        if isinstance(self.exclude, str):
            raise ConfigError(f"exclude is the text {self.exclude!r}", hint="give a list of ids")
        for name, low, high in (
            ("candidates", 1, 1000),
            ("max_prompt_tokens", 64, 1_000_000),
            ("max_new_tokens", 1, 100_000),
            ("max_sentences", 1, 100),
        ):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not low <= value <= high:
                raise ConfigError(
                    f"{name} is {value!r}", hint=f"it is a whole number from {low} to {high:,}"
                )
        for name in ("mmr_diversity", "min_confidence", "min_support"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value!r}", hint="it is a number from 0 to 1")
