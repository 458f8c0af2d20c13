"""The stage `audit`: find the terms that the base's tokenizer splits, and choose some of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypedDict

from pydantic import Field

from idiolect.errors import InputError
from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import Stage, Work

if TYPE_CHECKING:
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.audit import Audit, TermGroup
    from idiolect.vocabulary.audit.corpus_statistics import CorpusStatistics
    from idiolect.vocabulary.terms import Terms

__all__ = [
    "CHOSEN_TERMS",
    "RANDOM_TERMS",
    "STAGE",
    "AuditMetrics",
    "AuditSettings",
    "BrokenTerm",
    "TextMetrics",
    "audit",
]

CHOSEN_TERMS = "terms.json"
"""File name of the chosen terms, in the stage's folder."""
RANDOM_TERMS = "random.json"
"""File name of the same number of forms, chosen at random for the control."""
_SHOWN = 60


class AuditSettings(SettingsTable):
    """Settings for choosing terms."""

    max_rows: int = Field(default=500, ge=1)
    """Maximum number of new embedding rows; each spelling of a term takes one."""
    method: str | None = None
    """How they will be added: exact, merges, scores, words or append; by default the one that fits
    the tokenizer. `extend` uses the same method."""
    phrases: bool = True
    """Whether terms of several words may be chosen."""


class TextMetrics(TypedDict):
    """How well the base's tokenizer fits a text."""

    documents: int
    words: int
    tokens: int
    bytes_per_token: float
    tokens_per_word: float
    unknown_share: float
    """Share of unknown tokens, 0 to 1."""
    pieces: dict[str, int]
    """Number of words by the number of pieces they are split into."""


class BrokenTerm(TypedDict):
    """A term that the tokenizer splits."""

    term: str
    pieces: list[str]
    """The pieces it is split into."""
    count: int
    saved: int
    """Tokens saved in the audited text if each of its spellings became one token."""
    chosen: bool
    """Whether it is added to the vocabulary."""


class AuditMetrics(TypedDict):
    """Metrics of the stage."""

    items: int
    """Items in the catalogue."""
    tokenizer: str
    """Kind of tokenizer, such as byte-bpe."""
    vocabulary: int
    """Size of its vocabulary."""
    domain: TextMetrics
    general: TextMetrics | None
    candidates: int
    """Spellings that could become a token."""
    terms: int
    """Terms chosen."""
    rows: int
    """Spellings chosen: a token and an embedding row each."""
    saved: int
    """Tokens saved in the audited text, measured with the extended tokenizer."""
    broken: list[BrokenTerm]
    """The 60 terms that cost the most tokens, most expensive first."""
    skipped: dict[str, int]
    """Records of the corpus that could not be read, by reason."""
    notes: list[str]
    """Notes for readers."""


def audit(work: Work[AuditSettings]) -> AuditMetrics:
    """Find and choose terms; choose the same number of forms at random for the control."""
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.audit import audit as find_terms
    from idiolect.vocabulary.terms import read_glossary

    settings, data = work.settings, work.data
    items = data.items  # read first, so that bad input is reported before any work
    left_out = ", ".join(f"{count:,} {why}" for why, count in data.skipped.most_common())
    data.check()
    corpus, _ = data.corpus
    general = data.general[0] if data.general else None
    glossary = read_glossary(data.glossary) if data.glossary else None
    found = find_terms(Tokenizer.load(work.base), corpus, general, glossary)
    terms = found.choose(settings.max_rows, method=settings.method, phrases=settings.phrases)
    if not terms:
        reasons = "".join(f"; {one.text!r}: {one.reason}" for one in terms.rejected[:1])
        raise InputError(
            "the corpus has no recurring term that the tokenizer splits and that could become one "
            f"token{reasons}",
            hint="add text of the domain as data.corpus, or list terms in data.glossary",
        )
    terms.save(work.folder / CHOSEN_TERMS)
    picked = _random_terms(found, terms, settings, work.config.seed)
    picked.save(work.folder / RANDOM_TERMS)
    chosen = {form for term in terms for form in term.forms}
    return {
        "items": len(items),
        "tokenizer": found.tokenizer.kind,
        "vocabulary": len(found.tokenizer),
        "domain": _text(found.statistics),
        "general": _text(found.general) if found.general else None,
        "candidates": len(found.candidates),
        "terms": len(terms),
        "rows": len(terms.forms),
        "saved": terms.saved,
        "broken": [_broken(found.tokenizer, group, chosen) for group in found.groups[:_SHOWN]],
        "skipped": dict(corpus.skipped),
        "notes": [f"records of the catalogue that were left out: {left_out}"] if left_out else [],
    }


def _random_terms(found: Audit, terms: Terms, settings: AuditSettings, seed: int) -> Terms:
    """Choose random candidates for the same number of rows, regardless of the tokens they save."""
    from idiolect.vocabulary.extend.plan import choose_method, plan_extension
    from idiolect.vocabulary.forms import prepare_forms
    from idiolect.vocabulary.terms import Term, Terms

    names = [
        candidate.form
        for candidate in found.candidates
        if settings.phrases or " " not in candidate.form.strip()
    ]
    rows = len(terms.forms)
    # More than needed, because some cannot be added.
    picked = random.Random(seed).sample(names, min(4 * rows, len(names)))
    forms, _, _ = prepare_forms(found.tokenizer, Terms(Term(n.strip(), (n,)) for n in picked))
    method = choose_method(found.tokenizer, terms.method)
    plan = plan_extension(found.tokenizer, forms, method, max_rows=rows)
    return Terms([Term(f.text.strip(), (f.text,)) for f in plan.forms], method=method)


def _text(statistics: CorpusStatistics) -> TextMetrics:
    return {
        "documents": statistics.documents,
        "words": statistics.words,
        "tokens": statistics.tokens,
        "bytes_per_token": statistics.bytes_per_token,
        "tokens_per_word": statistics.tokens_per_word,
        "unknown_share": statistics.unknown_share,
        "pieces": {str(pieces): count for pieces, count in sorted(statistics.pieces.items())},
    }


def _broken(tokenizer: Tokenizer, group: TermGroup, chosen: set[str]) -> BrokenTerm:
    best = group.candidates[0]
    pieces = tokenizer.decode_batch([[piece] for piece in best.pieces], skip_special_tokens=False)
    return {
        "term": group.term,
        "pieces": pieces,
        "count": group.count,
        "saved": group.saved,
        "chosen": any(candidate.form in chosen for candidate in group.candidates),
    }


STAGE = Stage(
    name="audit",
    run=audit,
    settings=AuditSettings,
    metrics=AuditMetrics,
    inputs=("items", "corpus", "general", "glossary"),
)
