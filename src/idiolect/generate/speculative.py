"""Speculative decoding: draft several tokens, verify them in one step, keep accepted ones.

The output is that of decoding without drafts: equal for greedy search (up to rounding if two tokens
tie), and with the same distribution for sampling (Leviathan et al. 2023, 2211.17192).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions

__all__ = ["AssistantGuesses", "Guesses", "LookupGuesses", "speculate"]

_NGRAM = 2


class Guesses(Protocol):
    """Drafts the next tokens."""

    def propose(
        self, ids: list[int], most: int, random: np.random.Generator
    ) -> tuple[list[int], list[Tensor | None]]:
        """Return tokens, and the distribution each was sampled from; None if deterministic."""


class LookupGuesses:
    """Prompt lookup: draft the tokens that followed an earlier occurrence of the last two tokens.

    Args:
        prompt: Ids of the prompt.
        count: Number of tokens to draft.
    """

    def __init__(self, prompt: list[int], count: int) -> None:
        self.prompt, self.count = prompt, count

    def propose(
        self, ids: list[int], most: int, random: np.random.Generator
    ) -> tuple[list[int], list[Tensor | None]]:
        """Return the tokens after the first occurrence of the last tokens."""
        text = self.prompt + ids
        for size in range(min(_NGRAM, len(text) - 1), 0, -1):
            last = text[-size:]
            for start in range(len(text) - size):
                if text[start : start + size] == last:
                    end = start + size + min(self.count, most)
                    found = text[start + size : end]
                    return found, [None] * len(found)
        return [], []


class AssistantGuesses:
    """Draft with a faster model.

    Args:
        decoding: The prompt, for the faster model; not started.
        options: The number of tokens to draft, and the sampling settings.
    """

    def __init__(self, decoding: Decoding, options: GenerationOptions) -> None:
        self.decoding, self.options = decoding, options
        self._start: int | None = None
        self._read: list[int] = []

    def propose(
        self, ids: list[int], most: int, random: np.random.Generator
    ) -> tuple[list[int], list[Tensor | None]]:
        """Return the tokens that the faster model continues the text with."""
        if self._start is None:
            self.decoding.start()
            self._start = self.decoding.cache.length
        same = 0
        while same < min(len(self._read), len(ids) - 1) and self._read[same] == ids[same]:
            same += 1
        self.decoding.crop(self._start + same)
        new, guesses, shares = ids[same:], list[int](), list[Tensor | None]()
        self._read = list(ids)
        for _ in range(min(self.options.num_assistant_tokens, most)):
            states = self.decoding.read(torch.tensor([new], device=self.decoding.network.device))
            scores = self.decoding.score(states[:, -1])
            if self.options.do_sample:
                share = self.options.sampling.filter(scores)[0].softmax(-1)
                guesses.append(_draw(share, random))
                shares.append(share)
            else:
                guesses.append(int(scores.argmax()))
                shares.append(None)
            new = guesses[-1:]
        self._read += guesses[:-1]
        return guesses, shares


def speculate(
    decoding: Decoding,
    guesses: Guesses,
    process: Callable[[Tensor, list[int]], Tensor],
    options: GenerationOptions,
    limit: int,
    random: np.random.Generator,
) -> Iterator[tuple[Tensor, int]]:
    """Continue one text; the caller stops at its end.

    Args:
        decoding: The text, not started.
        guesses: Proposes tokens.
        process: Changes the scores of the next token, given the generated ids.
        options: Whether and how to sample.
        limit: Maximum number of new tokens.
        random: Source of random numbers.

    Yields:
        The log-probabilities of the network, and the token that was chosen.
    """
    ids: list[int] = []

    def choose(scores: Tensor, guess: int | None, drawn_from: Tensor | None) -> int:
        processed = process(scores, ids)
        if not options.do_sample:
            return int(processed.argmax())
        shares = options.sampling.filter(processed[None])[0].softmax(-1)
        if guess is None:
            return _draw(shares, random)
        return _accept_or_draw(shares, guess, drawn_from, random)

    scores = decoding.start()[0]
    ids.append(choose(scores, None, None))
    yield scores.log_softmax(-1), ids[-1]
    while len(ids) < limit:
        before = decoding.cache.length
        proposed, shares = guesses.propose(ids, limit - len(ids) - 1, random)
        read = torch.tensor([[ids[-1], *proposed]], device=scores.device)
        all_scores = decoding.score(decoding.read(read)[0])
        accepted = 0
        for place, scores in enumerate(all_scores):
            guess = proposed[place] if place < len(proposed) else None
            token = choose(scores, guess, shares[place] if guess is not None else None)
            ids.append(token)
            yield scores.log_softmax(-1), token
            if token != guess:
                break
            accepted += 1
        decoding.crop(before + 1 + accepted)


def _accept_or_draw(
    shares: Tensor, guess: int, drawn_from: Tensor | None, random: np.random.Generator
) -> int:
    """Return the guess with probability min(1, p / q), otherwise a sample from [p - q]+.

    If a rejected guess is sampled again, it counts as accepted, which gives the same text.
    """
    if drawn_from is None:  # deterministic: q is 1 for the guess
        drawn_from = torch.zeros_like(shares)
        drawn_from[guess] = 1.0
    if random.random() * float(drawn_from[guess]) <= float(shares[guess]):
        return guess
    rest = (shares - drawn_from).clamp(min=0)
    # If p equals q up to rounding, [p - q]+ is zero, and normalizing it would be 0 / 0.
    return _draw(rest if float(rest.sum()) > 0 else shares, random)


def _draw(shares: Tensor, random: np.random.Generator) -> int:
    reached = shares.double().cumsum(-1)
    place = int((reached <= random.random() * reached[-1]).sum())
    return min(place, int(shares.nonzero().max()))
