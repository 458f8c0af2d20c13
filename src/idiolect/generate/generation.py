"""A text that is being generated, and the finished text that `Generator` returns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from idiolect.generate.beam import Beam
from idiolect.generate.logits_processors import WrittenRow
from idiolect.generate.token_sampling import Mirostat
from idiolect.generate.transcript import Transcript
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["Generation", "TextRow"]


@dataclass(frozen=True)
class Generation:
    """A generated text."""

    text: str
    """The new text, without special tokens and stop strings."""
    ids: list[int]
    """The new ids, with the end token if there is one."""
    logprob: float
    """Sum of `logprobs`."""
    logprobs: list[float]
    """The network's log-probability of each id among those of the tokenizer, before processors and
    sampling."""
    finish_reason: str
    """`end` (an end token), `stop` (a stop string), `length` (max_new_tokens) or `context`."""
    score: float
    """The ranking score of a beam; without beam search, equal to `logprob`."""
    prompt: int
    """Number of the prompt."""
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    """The most likely ids at each position, with their log-probabilities, if requested."""


@dataclass(eq=False)
class TextRow(WrittenRow):
    """A text that is being generated."""

    number: int = 0
    source: list[int] = field(default_factory=list)
    limit: int = 0
    context: bool = False
    """Whether the limit is set by the model's context length."""
    random: np.random.Generator = field(default_factory=np.random.default_rng)
    mirostat: Mirostat | None = None
    transcript: Transcript | None = None
    logprobs: list[float] = field(default_factory=list)
    tops: list[list[tuple[int, float]]] = field(default_factory=list)
    finish_reason: str = ""

    def take(self, logs: Tensor, token: int, ends: Collection[int], top_logprobs: int) -> str:
        """Add a token, and record why the text ends; return the newly final part of the text.

        Args:
            logs: The network's log-probabilities. Shape: (vocabulary,).
            token: The token that was chosen.
            ends: Ids that end a text.
            top_logprobs: Number of alternatives to keep.
        """
        self.ids.append(token)
        self.logprobs.append(float(logs[token]))
        if top_logprobs:
            values, ids = logs.topk(min(top_logprobs, len(logs)))
            self.tops.append(list(zip(ids.tolist(), values.tolist(), strict=True)))
        text = "" if self.transcript is None else self.transcript.add(token)
        if token in ends:
            self.finish_reason = "end"
        elif self.transcript is not None and self.transcript.stopped:
            self.finish_reason = "stop"
        elif len(self.ids) >= self.limit:
            self.finish_reason = "context" if self.context else "length"
        return text

    def finished(self, tokenizer: Tokenizer) -> Generation:
        """Return the finished text."""
        total = sum(self.logprobs)
        if self.finish_reason == "stop" and self.transcript is not None:
            text = self.transcript.text
        else:
            text = tokenizer.decode(self.ids)
        reason = self.finish_reason or "length"
        return Generation(
            text, self.ids, total, self.logprobs, reason, total, self.number, self.tops
        )

    def finished_beam(self, beam: Beam, tokenizer: Tokenizer, stop: Collection[str]) -> Generation:
        """Return a text that a beam search found for this row's prompt."""
        text, reason = tokenizer.decode(beam.ids), "length"
        places = [place for words in stop if (place := text.find(words)) >= 0]
        if places:
            text, reason = text[: min(places)], "stop"
        elif beam.ended:
            reason = "end"
        elif self.context:
            reason = "context"
        return Generation(
            text, beam.ids, sum(beam.logprobs), beam.logprobs, reason, beam.score, self.number
        )
