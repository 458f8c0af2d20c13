"""Subword sampling: a different segmentation of the same text in each epoch, as regularization.

- Unigram: a segmentation is sampled from all possible ones with probability proportional to
  P(segmentation)^alpha, by forward filtering and backward sampling (Kudo 2018, arXiv:1804.10959).
- BPE dropout: each merge is skipped with some probability each time it is possible (Provilkov et
  al. 2020, arXiv:1910.13267). If the model looks up a whole word before merging (`ignore_merges`),
  the lookup counts as one more merge that can be skipped.

The engine can do both, but its random generator cannot be seeded, so a run could not be reproduced.
Here the caller provides the generator.
"""

from __future__ import annotations

import heapq
import json
from itertools import groupby
from math import exp, inf, log
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.text.tokenizers.word_counts import fixed_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from tokenizers import Encoding
    from tokenizers import Tokenizer as Engine

__all__ = ["Sampler", "check_strength"]


def check_strength(kind: str, *, alpha: float | None, dropout: float | None) -> float:
    """Return the sampling parameter that applies to a kind of tokenizer.

    Raises:
        InputError: it is missing or out of range, or the kind has no subword sampling.
    """
    if kind == "unigram":
        name, strength, other = "alpha", alpha, dropout
    elif kind.endswith("bpe"):
        name, strength, other = "dropout", dropout, alpha
    else:
        raise InputError(f"{kind} has no subword sampling", hint="known for Unigram and BPE")
    if strength is None or other is not None or strength < 0:
        raise InputError(f"{kind} needs {name}=, at least 0", hint="pass no other parameter")
    if name == "dropout" and strength > 1:
        raise InputError(
            f"dropout is {strength}, not a probability", hint="choose a number from 0 to 1"
        )
    return strength


class Sampler:
    """Sample segmentations with an engine of a BPE or Unigram model."""

    def __init__(self, engine: Engine) -> None:
        model: dict[str, Any] = json.loads(engine.model.__getstate__())
        self._fixed = fixed_ids(engine)
        self._draw: Callable[[str, float, Random], list[int] | None]
        if model["type"] == "Unigram":
            self._draw = _Unigram(model["vocab"], self._fixed).draw
        else:
            self._draw = _Merges(model).draw

    def resample(self, encoding: Encoding, strength: float, random: Random) -> list[int]:
        """Sample another segmentation of an encoded text.

        Special and added tokens, unknown characters and their byte pieces stay unchanged.

        Args:
            encoding: the engine's encoding of the text.
            strength: alpha for Unigram, the dropout probability for BPE.
            random: the random generator.
        """
        ids: list[int] = []
        for fixed, piece_ids, text in self._runs(encoding):
            drawn = None if fixed else self._draw(text, strength, random)
            ids += piece_ids if drawn is None else drawn
        return ids

    def _runs(self, encoding: Encoding) -> Iterator[tuple[bool, list[int], str]]:
        """Group the pieces of each pre-token that can be segmented together."""
        pieces = zip(encoding.ids, encoding.tokens, encoding.word_ids, strict=True)
        for (_, fixed), run in groupby(pieces, key=lambda p: (p[2], p[0] in self._fixed)):
            ids, tokens, _ = zip(*run, strict=True)
            yield fixed, list(ids), "".join(tokens)


class _Unigram:
    def __init__(self, vocab: list[tuple[str, float]], fixed: set[int]) -> None:
        self._pieces = {
            text: (id_, score) for id_, (text, score) in enumerate(vocab) if id_ not in fixed
        }
        self._longest = max(map(len, self._pieces), default=0)

    def draw(self, text: str, alpha: float, random: Random) -> list[int] | None:
        # total[i]: logarithm of the summed weight of all segmentations of text[:i]
        total = [0.0] + [-inf] * len(text)
        arcs: list[list[tuple[int, int, float]]] = [[]]
        for end in range(1, len(text) + 1):
            here = []
            for start in range(max(0, end - self._longest), end):
                piece = self._pieces.get(text[start:end])
                if piece is not None and total[start] > -inf:
                    here.append((start, piece[0], total[start] + alpha * piece[1]))
            if here:
                best = max(weight for _, _, weight in here)
                total[end] = best + log(sum(exp(weight - best) for _, _, weight in here))
            arcs.append(here)
        if total[-1] == -inf:
            return None
        ids, end = [], len(text)
        while end:
            weights = [exp(weight - total[end]) for _, _, weight in arcs[end]]
            start, id_, _ = random.choices(arcs[end], weights)[0]
            ids.append(id_)
            end = start
        return ids[::-1]


class _Merges:
    def __init__(self, model: dict[str, Any]) -> None:
        self._ids: dict[str, int] = model["vocab"]
        self._ranks = {(a, b): rank for rank, (a, b) in enumerate(model["merges"])}
        self._whole_first: bool = model.get("ignore_merges") or False
        self._suffix: str = model.get("end_of_word_suffix") or ""

    def draw(self, text: str, dropout: float, random: Random) -> list[int] | None:
        if self._whole_first and text in self._ids and random.random() >= dropout:
            return [self._ids[text]]
        ends_word = self._suffix and text.endswith(self._suffix)
        symbols = list(text.removesuffix(self._suffix) if ends_word else text)
        if ends_word:
            symbols[-1] += self._suffix
        pieces = self._merge(symbols, dropout, random)
        ids = [self._ids.get(piece) for piece in pieces]
        return None if None in ids else [id_ for id_ in ids if id_ is not None]

    def _merge(self, symbols: list[str], dropout: float, random: Random) -> list[str]:
        after = [*range(1, len(symbols)), -1]
        before = list(range(-1, len(symbols) - 1))
        heap: list[tuple[int, int, str, str]] = []

        def push(at: int) -> None:
            if at >= 0 and after[at] >= 0:
                pair = (symbols[at], symbols[after[at]])
                if pair in self._ranks:
                    heapq.heappush(heap, (self._ranks[pair], at, *pair))

        for at in range(len(symbols)):
            push(at)
        dropped = []
        while heap:
            candidate = heapq.heappop(heap)
            _, at, left, right = candidate
            if symbols[at] != left or after[at] < 0 or symbols[after[at]] != right:
                continue  # one of the two was merged in the meantime
            if random.random() < dropout:
                dropped.append(candidate)
                continue
            gone = after[at]
            symbols[at], symbols[gone] = left + right, ""
            after[at] = after[gone]
            if after[at] >= 0:
                before[after[at]] = at
            push(before[at])
            push(at)
            for again in dropped:
                heapq.heappush(heap, again)
            dropped.clear()
        return [symbol for symbol in symbols if symbol]
