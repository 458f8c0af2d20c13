"""Score how well a text supports a statement, by word overlap: a check that needs no model.

The score is the fraction of the statement's content words that the text contains (stemmed, without
case and accents). It is 0 if the text lacks a number of the statement, and halved if only one of
the two has a negation: fabricated statements most often differ in these. Any other scorer of pairs,
such as a `CrossEncoder` trained on entailment, can be used instead.

>>> support = WordSupport()
>>> support.score([("The pump moves 9 litres.", "Each pump moves 9 litres an hour.")]).tolist()
[1.0]
>>> support.score([("The pump moves 8 litres.", "Each pump moves 9 litres an hour.")]).tolist()
[0.0]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from idiolect.search.store.lexical_terms import text_terms

if TYPE_CHECKING:
    from idiolect.search.store.any_store import AnyStore

__all__ = ["PairScorer", "WordSupport", "content_terms", "language_of"]

PairScorer = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]
"""Scores pairs of texts: a question and a passage, or a statement and its evidence."""

_STOP_WORDS = (
    "a about after all also am an and any are as at be because been before being between both "
    "but by can could did do does doing during each few for from further had has have having he "
    "her here hers him his how i if in into is it its itself just kind many may me might more "
    "most much must my name no not of off on once only or other our out over own same shall she "
    "should so some such than that the their them then there these they this those through to "
    "too under until up upon us used very was we were what when where which while who whom "
    "whose why will with would you your"
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(
    r"\b(?:no|not|never|none|neither|nor|without|cannot|lacks?|\w+n['’]t)\b", re.IGNORECASE
)


@cache
def _stop_terms(language: str) -> frozenset[str]:
    return frozenset(text_terms(_STOP_WORDS, language))


def content_terms(text: str, language: str = "en") -> list[str]:
    """Return the terms of a text in order, without English stop words."""
    stop = _stop_terms(language)
    return [term for term in text_terms(text, language) if term not in stop]


def language_of(store: AnyStore) -> str:
    """Return the language of the texts of a store."""
    return str(store.settings.get("language", "en"))


class WordSupport:
    """Scores statements by word overlap with their evidence.

    Args:
        language: Language of the texts; see `idiolect.search.store.lexical_terms`.
    """

    def __init__(self, language: str = "en") -> None:
        self.language = language

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return how well evidence supports statements, from 0 to 1. Shape: (pairs,).

        Args:
            pairs: (statement, evidence). A statement without content words scores 0.
        """
        return np.array([self._one(claim, evidence) for claim, evidence in pairs], np.float32)

    def _one(self, claim: str, evidence: str) -> float:
        wanted = set(content_terms(claim, self.language))
        if not wanted or not _numbers(claim) <= _numbers(evidence):
            return 0.0
        share = len(wanted & set(text_terms(evidence, self.language))) / len(wanted)
        negated = [_NEGATION.search(text) is not None for text in (claim, evidence)]
        return share if negated[0] == negated[1] else share / 2


def _numbers(text: str) -> set[str]:
    return {number.replace(",", "") for number in _NUMBER.findall(text)}
