"""Judges of pairs of answers: by a reward model, by log-probability, or by a chat endpoint.

A judge returns, for each pair, the probability that the first answer is better. A judge that reads
both answers at once may have a position bias; `win_rate` therefore asks for both orders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from idiolect.alignment.chat.chat_encoding import prepare_prompts
from idiolect.alignment.preference.completion_batch import (
    CompletionBatch,
    EncodedCompletion,
    score_texts,
)
from idiolect.alignment.preference.preferences import Preference, Prompt, prompt_text
from idiolect.alignment.preference.train_preferences import encode_sides, wrapped
from idiolect.alignment.reward.reward_model import RewardModel
from idiolect.errors import ConfigError, InputError
from idiolect.generate.model_defaults import find_context_length
from idiolect.generate.prompts.chat_template import find_chat_template
from idiolect.models.language_model import LanguageModel
from idiolect.search.answers.writers import EndpointWriter
from idiolect.training.progress import notice, track

__all__ = [
    "AnswerPair",
    "EndpointJudge",
    "LikelihoodJudge",
    "PairJudge",
    "RewardJudge",
    "WinRate",
    "as_margins",
    "win_rate",
]

_AT_ONCE = 8
_REPLY_TOKENS = 16
_SECONDS = 120
_VERDICT = re.compile(r"\[\[([ABC])\]\]")
_QUESTION = """Which of two answers to a request is better: more correct, more helpful and to the \
point? Length does not matter. Reply with [[A]], [[B]], or [[C]] for a tie, and nothing else.

Request:
{prompt}

Answer A:
{first}

Answer B:
{second}"""


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to a prompt."""

    prompt: Prompt
    first: str
    second: str


class PairJudge(Protocol):
    """Decides which of two answers is better."""

    def __call__(self, pairs: Sequence[AnswerPair]) -> NDArray[np.float64]:
        """Return the probability that the first answer is better. Shape: (pairs,)."""


class RewardJudge:
    """Prefers the answer that a reward model scores higher."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    def report_cut(self, pairs: Sequence[AnswerPair]) -> None:
        """Print how many pairs are too long for the model."""
        self.model.report_cut([Preference(one.prompt, one.first, one.second) for one in pairs])

    def __call__(self, pairs: Sequence[AnswerPair]) -> NDArray[np.float64]:
        """Return σ of the difference of scores."""
        found = [Preference(pair.prompt, pair.first, pair.second) for pair in pairs]
        chances: NDArray[np.float64] = expit(self.model.margins(found))
        return chances


class LikelihoodJudge:
    """Prefers the answer with the higher mean log-probability per token in a language model.

    An answer without tokens (an empty one, if the model has no end token) loses to any other.

    Args:
        model: A causal language model.

    Raises:
        ConfigError: The model is not causal: it would see the tokens that it should predict.
    """

    def __init__(self, model: LanguageModel) -> None:
        if model.network.kind != "causal":
            raise ConfigError(
                f"log-probabilities of answers need a causal model; this one is "
                f"{model.network.kind}",
                hint="choose a decoder, or train a reward model: idiolect align reward",
            )
        self.model = model
        self._longest = find_context_length(model) or 2048
        # A template given for some prompts must not change how plain ones are read.
        self._chats = find_chat_template(model.tokenizer) is not None

    def report_cut(self, pairs: Sequence[AnswerPair]) -> None:
        """Print how many pairs are too long for the model."""
        cut = sum(any(self._cut(side) != side for side in both) for both in self._sides(pairs))
        if cut:
            notice(f"{cut:,} of {len(pairs):,} pairs are cut to {self._longest} tokens")

    def __call__(self, pairs: Sequence[AnswerPair]) -> NDArray[np.float64]:
        """Return σ of the difference of mean log-probabilities."""
        means = np.zeros((len(pairs), 2))
        network = self.model.network
        sides = [[self._cut(side) for side in both] for both in self._sides(pairs)]
        order = sorted(range(len(sides)), key=lambda i: max(map(len, sides[i])))
        starts = range(0, len(order), _AT_ONCE)
        network.eval()
        with torch.no_grad():
            for start in track(starts, "judging, batches", len(starts)):
                own = order[start : start + _AT_ONCE]
                batch = CompletionBatch.of([sides[i] for i in own])
                scores = score_texts(network, batch.to(network.device))
                found = scores.log_probs / scores.lengths.clamp(min=1)
                found = found.masked_fill(scores.lengths == 0, -torch.inf)
                means[own] = found.double().cpu().numpy()
        first, second = means.T
        with np.errstate(invalid="ignore"):  # two answers without tokens are a tie
            difference = np.where(first == second, 0.0, first - second)
        chances: NDArray[np.float64] = expit(difference)
        return chances

    def _sides(self, pairs: Sequence[AnswerPair]) -> list[list[EncodedCompletion]]:
        """Encode both answers of each pair, however long they are."""
        tokenizer = self.model.tokenizer
        given = [
            wrapped(Preference(one.prompt, one.first, one.second), tokenizer, self._chats)
            for one in pairs
        ]
        prepare_prompts(tokenizer, (one.prompt for one in given))
        return [encode_sides(tokenizer, one.prompt, (one.chosen, one.rejected)) for one in given]

    def _cut(self, side: EncodedCompletion) -> EncodedCompletion:
        """Truncate a prompt that does not fit, on the left."""
        completion = side.completion_ids[: self._longest // 2]
        room = self._longest - len(completion)
        return EncodedCompletion(side.prompt_ids[-room:], completion)


class EndpointJudge:
    """Asks a chat model behind an OpenAI-compatible endpoint.

    Args:
        url: Base URL of the API, such as `http://localhost:8000/v1`.
        model: The model's name at the endpoint.
        key: Sent as a bearer token.

    Raises:
        ConfigError: The address or the key cannot be used.
    """

    def __init__(self, url: str, model: str, *, key: str = "") -> None:
        self._writer = EndpointWriter(url, model, api_key=key or None, timeout=_SECONDS)
        self.unclear = 0
        """Replies without a verdict; they count as ties."""

    def __call__(self, pairs: Sequence[AnswerPair]) -> NDArray[np.float64]:
        """Return 1, 0, or 0.5 for a tie.

        Raises:
            OfflineError: The server cannot be reached, or stops answering.
            InputError: The server rejects the request, or its reply has another form.
        """
        asked = track(pairs, "asking the judge, pairs", len(pairs))
        return np.array([self._ask(pair) for pair in asked])

    def _ask(self, pair: AnswerPair) -> float:
        question = _QUESTION.format(
            prompt=prompt_text(pair.prompt), first=pair.first, second=pair.second
        )
        messages = [{"role": "user", "content": question}]
        verdict = _VERDICT.search("".join(self._writer.write(messages, _REPLY_TOKENS)))
        self.unclear += verdict is None
        return {"A": 1.0, "B": 0.0}.get(verdict[1] if verdict else "", 0.5)


@dataclass(frozen=True)
class WinRate:
    """How often the first of two systems is judged better."""

    pairs: int
    win_rate: float
    """Mean probability that the first system is better, over both orders; 0.5 is a tie."""
    low: float
    high: float
    """95 % bootstrap interval over pairs."""
    consistent: float
    """Share of pairs with the same verdict in both orders."""
    first_place: float
    """Mean probability of the answer that the judge reads first; 0.5 without position bias."""

    def as_dict(self) -> dict[str, Any]:
        """Return all values, for JSON."""
        return asdict(self)


def win_rate(
    judge: PairJudge, pairs: Sequence[AnswerPair], *, samples: int = 1000, seed: int = 0
) -> WinRate:
    """Judge pairs in both orders.

    Args:
        judge: The judge.
        pairs: The answers of two systems.
        samples: Number of bootstrap samples.
        seed: Random seed of the bootstrap.

    Raises:
        InputError: There are no pairs.
    """
    if not pairs:
        raise InputError("there are no pairs", hint="give at least one")
    forward = judge(pairs)
    backward = judge([AnswerPair(pair.prompt, pair.second, pair.first) for pair in pairs])
    mean = (forward + 1 - backward) / 2
    drawn = np.random.default_rng(seed).integers(len(mean), size=(samples, len(mean)))
    low, high = np.quantile(mean[drawn].mean(1), [0.025, 0.975])
    same = np.sign(forward - 0.5) == np.sign(0.5 - backward)
    return WinRate(
        pairs=len(pairs),
        win_rate=float(mean.mean()),
        low=float(low),
        high=float(high),
        consistent=float(same.mean()),
        first_place=float((forward + backward).mean() / 2),
    )


def as_margins(judge: PairJudge, preferences: Sequence[Preference]) -> NDArray[np.float64]:
    """Return a judge's log-odds for each chosen answer, from both orders."""
    pairs = [AnswerPair(p.prompt, p.chosen, p.rejected) for p in preferences]
    backward = [AnswerPair(p.prompt, p.rejected, p.chosen) for p in preferences]
    mean = ((judge(pairs) + 1 - judge(backward)) / 2).clip(1e-6, 1 - 1e-6)
    found: NDArray[np.float64] = np.log(mean) - np.log1p(-mean)
    return found
