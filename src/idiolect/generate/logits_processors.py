"""Logits processors: change the scores of the next token, given the text so far.

A processor is any callable with the signature of `LogitsProcessor`. Several are applied in order,
before sampling truncates the distribution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from idiolect.errors import InputError

__all__ = [
    "BadWords",
    "ForcedStart",
    "LogitsProcessor",
    "MinimumLength",
    "NoRepeatNgram",
    "Penalties",
    "WrittenRow",
    "nothing_permitted",
]

_OUT = float("-inf")


@dataclass(eq=False)
class WrittenRow:
    """The ids of one row of the batch so far."""

    prompt: list[int]
    """Ids of the prompt that the decoder continues; empty for an encoder-decoder."""
    ids: list[int] = field(default_factory=list)
    """Generated ids."""


class LogitsProcessor(Protocol):
    """Changes the scores of the next token."""

    def __call__(self, scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        """Return new scores, or change them in place. Shape: (rows, vocabulary), float32."""


@dataclass(frozen=True)
class Penalties:
    """Repetition, presence and frequency penalties: make repeated tokens less likely."""

    repetition: float = 1.0
    """Positive logits are divided and negative ones multiplied by this, once for each distinct
    token of prompt and text (Keskar et al. 2019, 1909.05858)."""
    presence: float = 0.0
    """Subtracted for each distinct generated token."""
    frequency: float = 0.0
    """Subtracted each time a token was generated."""

    def __call__(self, scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        """Return the penalized scores."""
        for row, written in enumerate(rows):
            if self.repetition != 1:
                seen = torch.tensor(sorted({*written.prompt, *written.ids}), device=scores.device)
                if len(seen):
                    old = scores[row, seen]
                    scores[row, seen] = torch.where(
                        old < 0, old * self.repetition, old / self.repetition
                    )
            if (self.presence or self.frequency) and written.ids:
                counts = Counter(written.ids)
                times = torch.tensor(list(counts.values()), device=scores.device)
                scores[row, list(counts)] -= self.presence + self.frequency * times
        return scores


@dataclass(frozen=True)
class NoRepeatNgram:
    """Forbid tokens that would complete an n-gram of prompt and text a second time."""

    size: int

    def __call__(self, scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        """Return the scores without the forbidden tokens."""
        for row, written in enumerate(rows):
            ids = written.prompt + written.ids
            last = ids[len(ids) - self.size + 1 :]
            banned = [
                ids[start + self.size - 1]
                for start in range(len(ids) - self.size + 1)
                if ids[start : start + self.size - 1] == last
            ]
            scores[row, banned] = _OUT
        return scores


@dataclass(frozen=True)
class BadWords:
    """Forbid token sequences: the last token of a sequence is forbidden after the others."""

    sequences: tuple[tuple[int, ...], ...]

    def __call__(self, scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        """Return the scores without the forbidden tokens."""
        for row, written in enumerate(rows):
            ids = written.prompt + written.ids
            for *before, last in self.sequences:
                if not before or ids[-len(before) :] == before:
                    scores[row, last] = _OUT
        return scores


@dataclass(frozen=True)
class MinimumLength:
    """Forbid the end of a text before a number of tokens."""

    count: int
    eos_token_id: tuple[int, ...]

    def __call__(self, scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        """Return the scores; before the minimum length, end tokens are forbidden."""
        for row, written in enumerate(rows):
            if len(written.ids) < self.count:
                scores[row, list(self.eos_token_id)] = _OUT
        return scores


@dataclass(frozen=True)
class ForcedStart:
    """Force the first generated token, such as the language of a translation."""

    token: int

    def __call__(self, scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        """Return the scores; at the start, only the forced token is permitted."""
        for row, written in enumerate(rows):
            if not written.ids:
                scores[row] = _OUT
                scores[row, self.token] = 0.0
        return scores


def nothing_permitted() -> InputError:
    """Return the error for a text for which all tokens are forbidden."""
    return InputError(
        "no token is permitted: forbidden and required words, n-grams and constraints exclude all",
        hint="relax one of them",
    )
