"""BLEU by sacrebleu, with the signature of its settings (Post 2018, 1804.08771)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from idiolect.errors import InputError

__all__ = ["Bleu", "bleu", "sentence_bleu"]


@dataclass(frozen=True)
class Bleu:
    """A corpus score."""

    score: float
    """BLEU, 0 to 100."""
    signature: str
    """Case, tokeniser, smoothing and version."""
    reference_length: int
    """Number of reference tokens; it differs if references or tokenisation differ."""
    brevity_penalty: float
    """Below 1 if the translations are shorter than the references."""

    def __str__(self) -> str:
        """Return the score in one line."""
        return (
            f"BLEU {self.score:.2f} (brevity penalty {self.brevity_penalty:.3f}, reference length "
            f"{self.reference_length:,}) {self.signature}"
        )


def bleu(
    translations: Sequence[str],
    references: Sequence[str],
    *,
    lowercase: bool = False,
    tokenize: str = "13a",
) -> Bleu:
    """Score translations against one reference each.

    Args:
        translations: The translations.
        references: One reference for each translation.
        lowercase: Ignore case.
        tokenize: sacrebleu's tokeniser: `13a` for raw text, `none` for tokenised text.

    Raises:
        InputError: sacrebleu is not installed, or the numbers of texts differ.
    """
    metric = _metric(lowercase=lowercase, tokenize=tokenize)
    if not references or len(translations) != len(references):
        raise InputError(
            f"{len(translations):,} translations and {len(references):,} references",
            hint="give each text one reference",
        )
    found = metric.corpus_score(list(translations), [list(references)])
    return Bleu(found.score, str(metric.get_signature()), found.ref_len, found.bp)


def sentence_bleu(
    translations: Sequence[str],
    references: Sequence[str],
    *,
    lowercase: bool = False,
    tokenize: str = "13a",
) -> list[float]:
    """Return the BLEU of each translation, with n-grams up to its length.

    Args:
        translations: The translations.
        references: One reference for each translation.
        lowercase: Ignore case.
        tokenize: As for `bleu`.

    Raises:
        InputError: sacrebleu is not installed.
    """
    metric = _metric(lowercase=lowercase, tokenize=tokenize, effective_order=True)
    pairs = zip(translations, references, strict=True)
    return [metric.sentence_score(found, [right]).score for found, right in pairs]


def _metric(**settings: Any) -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise InputError(
            "BLEU needs sacrebleu", hint="pip install 'idiolect[translation]'"
        ) from error
    known = BLEU.TOKENIZERS
    if settings["tokenize"] not in known:
        raise InputError(
            f"unknown tokeniser {settings['tokenize']!r}", hint="one of " + ", ".join(known)
        )
    return BLEU(**settings, force=True)
