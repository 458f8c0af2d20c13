"""Score answers as the official SQuAD scripts do (arXiv 1606.05250, 1806.03822)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

__all__ = ["answer_f1", "exact_match", "normalize_answer", "word_f1"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lowercase a text, and remove punctuation, articles and extra spaces.

    >>> normalize_answer("The Broncos' 24–10 win.")
    'broncos 24–10 win'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def word_f1(found: str, right: str) -> float:
    """Return the word-overlap F1 of two answers after normalising both.

    >>> word_f1("the black cat", "a cat")
    0.6666666666666666
    """
    ours, theirs = normalize_answer(found).split(), normalize_answer(right).split()
    if not ours or not theirs:
        return float(ours == theirs)
    same = (Counter(ours) & Counter(theirs)).total()
    return 2 * same / (len(ours) + len(theirs))


def exact_match(found: str, rights: Sequence[str]) -> float:
    """Return 1 if the answer equals a gold answer, otherwise 0; if there are none, "" is right."""
    own = normalize_answer(found)
    return float(any(own == normalize_answer(right) for right in _targets(rights)))


def answer_f1(found: str, rights: Sequence[str]) -> float:
    """Return the highest word F1 of an answer with any gold answer."""
    return max(word_f1(found, right) for right in _targets(rights))


def _targets(rights: Sequence[str]) -> Sequence[str]:
    # Gold answers that are empty after normalization are ignored, as in the official script.
    return [right for right in rights if normalize_answer(right)] or [""]
