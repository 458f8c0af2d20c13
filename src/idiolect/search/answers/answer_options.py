"""`AnswerOptions`: validated options for finding passages and writing an answer."""

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
    """Options for answering a question.

    Raises:
        ConfigError: A value is out of its range.
    """

    mode: Mode = "hybrid"
    """How passages are searched; see `Index.search`."""
    filter: Mapping[str, Any] | str | None = None
    """Only items whose metadata match; see `idiolect.search.filters`."""
    namespace: str = ""
    """The namespace to search."""
    exclude: Collection[str] = ()
    """Ids of items to exclude."""
    rerank: PairScorer | None = None
    """Scores pairs of question and passage, such as `CrossEncoder.score`; the passages with the
    highest scores are used."""
    candidates: int = 30
    """Minimum number of passages to rerank and diversify."""
    mmr_diversity: float = 0.1
    """0 to 1: how much the passages should differ from one another (MMR)."""

    model: Any = None
    """The model that writes: a `Generator`, a language model or its name, or a `Writer` such as
    `EndpointWriter`. With None, the answer consists of sentences of the passages."""
    instructions: str | None = None
    """The system prompt. The default asks to answer from the passages and to cite them."""
    max_prompt_tokens: int = 1024
    """Maximum tokens of the prompt."""
    max_new_tokens: int = 128
    """Maximum tokens that the model generates."""
    max_sentences: int = 2
    """Maximum sentences of an answer without a model."""

    min_confidence: float = 0.45
    """Abstain if the confidence is lower; 0 never abstains. See `answer_confidence`."""
    support: PairScorer | None = None
    """Scores pairs of statement and evidence from 0 to 1; by default `WordSupport`."""
    min_support: float = 0.6
    """Minimum `support` score at which a passage supports a statement."""
    only_supported: bool = True
    """Remove sentences of the model that no passage supports."""

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
