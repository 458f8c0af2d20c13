"""Lexically constrained beam search: beams that must contain required words.

Post & Vilar 2018 (1804.06609), dynamic beam allocation: the most likely beams alone would rarely
contain an unlikely word. So each beam is also continued with the tokens of its missing words.
Candidates are grouped into banks by their progress, and the beams are allocated to the banks in
turn, starting with the most advanced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from torch import Tensor

__all__ = ["Continuation", "RequiredWords"]


class Continuation(NamedTuple):
    """A beam continued by one token."""

    sum: float
    parent: int
    token: int
    ends: bool


@dataclass(frozen=True)
class _Progress:
    bank: int
    """Progress of a text with its words; complete words count more than tokens."""
    is_complete: bool
    tokens: tuple[int, ...]
    """Tokens that advance it."""


class RequiredWords:
    """Words that each text must contain.

    Args:
        words: For each word, alternative sequences of ids, one of which is enough.
    """

    def __init__(self, words: Sequence[Sequence[Sequence[int]]]) -> None:
        self.words = [[tuple(form) for form in forms] for forms in words]
        self._longest = max(len(form) for forms in self.words for form in forms)

    @property
    def shortest(self) -> int:
        """Minimum number of tokens that contain all words, if none overlap."""
        return sum(min(map(len, forms)) for forms in self.words)

    def progress(self, ids: Sequence[int]) -> _Progress:
        """Return the progress of a text."""
        text = tuple(ids)
        missing = [forms for forms in self.words if not any(_contains(text, f) for f in forms)]
        every = [form for forms in missing for form in forms]
        begun = max((_begun(text, form) for form in every), default=0)
        bank = (len(self.words) - len(missing)) * self._longest
        if begun:
            every = [form for form in every if _begun(text, form) == begun]
            bank += self._longest - min(len(form) - begun for form in every)
        tokens = tuple(dict.fromkeys(form[begun] for form in every))
        return _Progress(bank, not missing, tokens)

    def proposed(self, ids: Sequence[int], sums: Tensor) -> set[int]:
        """Return tokens to continue a beam with: those of missing words, and the most likely one.

        The most likely one is included so that a beam with all its words is not lost. Shape: sums
        (vocabulary,).
        """
        return {*self.progress(ids).tokens, *sums.topk(1).indices.tolist()}

    def choose(
        self,
        beams: Sequence[Sequence[int] | None],
        found: Sequence[Continuation],
        sums: Tensor,
        ends: Callable[[Sequence[int]], bool],
        size: int,
    ) -> tuple[list[Continuation], list[Continuation]]:
        """Choose the continuations to keep, and the texts that are finished.

        Args:
            beams: The ids of each beam; None for an unused beam.
            found: The most likely continuations, best first.
            sums: The summed log-probability of each beam and token. Shape: (beams, vocabulary).
            ends: Whether the last token of a text ends it.
            size: Maximum number of continuations.

        Returns:
            At most `size` of each. Texts that end without a required word are dropped.
        """
        ended = [one for one in found[:size] if one.ends]
        going = [one for one in found if not one.ends][:size]
        known = {(one.parent, one.token) for one in ended + going}
        for parent, ids in enumerate(beams):
            if ids is None:
                continue
            for token in sorted(self.proposed(ids, sums[parent])):
                value = float(sums[parent, token])
                if (parent, token) not in known and value > float("-inf"):
                    one = Continuation(value, parent, token, ends([*ids, token]))
                    (ended if one.ends else going).append(one)
        states = [self.progress([*(beams[one.parent] or ()), one.token]) for one in going]
        order = sorted(range(len(going)), key=lambda i: (-states[i].bank, -going[i].sum))
        places: dict[int, count[int]] = {}
        turns = {i: next(places.setdefault(states[i].bank, count())) for i in order}
        order.sort(key=turns.__getitem__)
        ended = [
            one
            for one in sorted(ended, key=lambda one: -one.sum)
            if self.progress([*(beams[one.parent] or ()), one.token]).is_complete
        ]
        return [going[i] for i in order[:size]], ended[:size]


def _contains(text: tuple[int, ...], form: tuple[int, ...]) -> bool:
    size = len(form)
    return any(text[start : start + size] == form for start in range(len(text) - size + 1))


def _begun(text: tuple[int, ...], form: tuple[int, ...]) -> int:
    """Return the length of the longest prefix of `form` that the text ends with."""
    most = min(len(form) - 1, len(text))
    return next((n for n in range(most, 0, -1) if text[-n:] == form[:n]), 0)
