"""ROUGE by Google's rouge-score, with its settings (Lin 2004).

- Words are runs of `a-z0-9` after lower-casing: a text in another script has none, and scores 0.
- ROUGE-Lsum compares sentences; texts are split here, since rouge-score expects one per line.
- With several references, the one with the highest F1 is used, separately for each metric.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from idiolect.errors import InputError
from idiolect.tasks.summarise.summarised_texts import split_sentences

__all__ = ["Rouge", "rouge"]

_MEASURES = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rouge_l", "rougeLsum": "rouge_lsum"}
"""Our names of rouge-score's metrics."""


@dataclass(frozen=True)
class Rouge:
    """Mean F1 of summaries, 0 to 100."""

    rouge1: float
    rouge2: float
    rouge_l: float
    rouge_lsum: float
    each: tuple[float, ...]
    """ROUGE-1 F1 of each summary, 0 to 1."""
    settings: str
    """Version, stemmer and references."""
    without_words: int
    """Texts whose references have no word in Latin letters or digits: they score 0."""

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics by rouge-score's names, without the scores of single summaries."""
        theirs = {ours: name for name, ours in _MEASURES.items()}
        values = {name: value for name, value in asdict(self).items() if name != "each"}
        return {theirs.get(name, name): value for name, value in values.items()}


def rouge(
    found: Sequence[str], references: Sequence[Sequence[str]], *, use_stemmer: bool = True
) -> Rouge:
    """Score summaries.

    Args:
        found: The summaries.
        references: The references of each.
        use_stemmer: Compare the stems of words (Porter).

    Raises:
        InputError: rouge-score is not installed, a reference is empty, or the numbers differ.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            "ROUGE needs rouge-score", hint="pip install 'idiolect[summarisation]'"
        ) from error
    if not references or len(found) != len(references):
        raise InputError(
            f"{len(found):,} summaries and {len(references):,} references",
            hint="give each summary at least one reference",
        )
    for number, texts in enumerate(references, 1):
        if not texts or not all(text.strip() for text in texts):
            raise InputError(
                f"text {number:,} has an empty reference", hint="remove it, or write a summary"
            )
    scorer = RougeScorer(list(_MEASURES), use_stemmer=use_stemmer)
    scores: dict[str, list[float]] = {name: [] for name in _MEASURES}
    for summary, texts in zip(found, references, strict=True):
        own = scorer.score_multi([_by_line(text) for text in texts], _by_line(summary))
        for name in _MEASURES:
            scores[name].append(own[name].fmeasure)
    most = max(map(len, references))
    bare = sum(not any(re.search("[a-z0-9]", t.lower()) for t in texts) for texts in references)
    return Rouge(
        **{_MEASURES[name]: 100 * sum(own) / len(own) for name, own in scores.items()},
        each=tuple(scores["rouge1"]),
        settings=f"rouge-score {_version()}, F1, stemmer {'on' if use_stemmer else 'off'}, "
        f"{'best of up to ' + str(most) + ' references' if most > 1 else 'one reference'}",
        without_words=bare,
    )


def _by_line(text: str) -> str:
    return "\n".join(split_sentences(text))


def _version() -> str:
    from importlib.metadata import version

    return version("rouge-score")
