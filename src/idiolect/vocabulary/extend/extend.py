"""`extend`: add terms to a tokenizer or a model, verify the result, and record the verification.

>>> larger = extend(tokenizer, ["HbA1c", "metformin"], general=Corpus("books/"))  # doctest: +SKIP
>>> print(larger.extension)  # doctest: +SKIP
4 tokens added by 'exact'
general: 3288 documents, 0.0% fewer tokens, 0 changed beyond the terms, 0 uses inside longer words
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from idiolect.errors import InputError, VerificationError
from idiolect.text.arguments import checked, wrong_type
from idiolect.text.corpus import documents_of
from idiolect.text.tokenizers.extension import Added, Extension, Refused
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend.plan import METHODS, choose_method, plan_extension
from idiolect.vocabulary.extend.responsible import find_responsible_forms
from idiolect.vocabulary.extend.verification import compare_tokenizers
from idiolect.vocabulary.forms import prepare_forms
from idiolect.vocabulary.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from idiolect.models.language_model import LanguageModel
    from idiolect.text.tokenizers.extension import Check
    from idiolect.vocabulary.extend.methods import DraftExtension
    from idiolect.vocabulary.extend.plan import ExtensionPlan
    from idiolect.vocabulary.rows.initial_rows import Init
    from idiolect.vocabulary.rows.neighbours import WordLookup

__all__ = ["METHODS", "extend"]

_PREFIX_METHODS = frozenset({"append"})
"""Methods that by design also change longer words that begin with a term."""
_TIE_METHODS = frozenset({"scores"})
"""Methods that may swap two equally likely segmentations of a word. The score of the unknown token
depends on the lowest score of the vocabulary, and changes how sums are rounded."""
_MAX_ATTEMPTS = 12
"""Maximum number of drafts; each excludes the terms that failed in earlier ones."""


@overload
def extend(
    base: Tokenizer,
    terms: Terms | Iterable[str],
    method: str | None = None,
    *,
    domain: Iterable[str] | None = None,
    general: Iterable[str] | None = None,
    max_rows: int | None = None,
) -> Tokenizer: ...
@overload
def extend(
    base: LanguageModel,
    terms: Terms | Iterable[str],
    method: str | None = None,
    *,
    domain: Iterable[str] | None = None,
    general: Iterable[str] | None = None,
    max_rows: int | None = None,
    init: Init = "subword",
    vectors: WordLookup | None = None,
    seed: int = 0,
) -> LanguageModel: ...
@checked
def extend(
    base: Tokenizer | LanguageModel,
    terms: Terms | Iterable[str],
    method: str | None = None,
    *,
    domain: Iterable[str] | None = None,
    general: Iterable[str] | None = None,
    max_rows: int | None = None,
    init: Init = "subword",
    vectors: WordLookup | None = None,
    seed: int = 0,
) -> Tokenizer | LanguageModel:
    """Add terms to a tokenizer, so that each becomes one token, and verify the result.

    Args:
        base: a `Tokenizer`, or a `LanguageModel`, whose network then gets a row for each new
            token (see `grow`). It is not modified.
        terms: the result of `Audit.choose`, or plain strings, which are added with and without a
            leading space.
        method: how to add the terms; by default the one that `Audit.choose` chose them for, or
            else the first one that the kind of tokenizer supports.

            - `exact`: whole words and phrases only; other text cannot change. For byte-level and
              SentencePiece BPE.
            - `merges`: appended merges, for runtimes that support nothing else. Terms of more
              than two pieces need more than one row. For the same kinds.
            - `scores`: pieces with scores, for Unigram.
            - `words`: whole words, for WordPiece.
            - `append`: vocabulary entries that also match the beginning of longer words, for
              WordPiece.
        domain: held-out text of the domain, to verify on.
        general: other text, to verify that its tokenization is unchanged. `merges` also uses it to
            choose the order of merges.
        max_rows: maximum number of new ids, each of which takes an embedding row.
        init: initialization of a model's new rows; see `rows`. `neighbours` learns from `domain`.
        vectors: word vectors of the domain, for `init="vectors"`: a new row is then a mixture of
            the rows of similar words (FOCUS).
        seed: random seed of a model's new rows.

    Returns:
        An extended tokenizer or model. Its `extension` records what was added, refused and
        verified. If `base` is already extended and nothing is left to add, `base` itself.

    Raises:
        InputError: there are no terms, or the method is unknown.
        ConfigError: this kind of tokenizer cannot be extended.
        VerificationError: the ids of text without the terms, or decoding, would change no matter
            which terms are left out.
    """
    if not isinstance(init, str):
        raise wrong_type(init, "init", "a text", "such as subword")
    if not isinstance(base, Tokenizer) and not hasattr(base, "network"):
        raise wrong_type(
            base, "base", "a Tokenizer or a LanguageModel", "load it with LanguageModel.load"
        )
    # They are read several times: to plan, to verify, again with fewer terms, and for new rows.
    domain, general = (list(one) if isinstance(one, Iterator) else one for one in (domain, general))
    if isinstance(base, Tokenizer):
        return _extend_tokenizer(
            base, terms, method, domain=domain, general=general, max_rows=max_rows
        )
    # Imported here because extending a bare tokenizer does not need torch.
    from idiolect.vocabulary.rows.grow import grow

    larger = _extend_tokenizer(
        base.tokenizer, terms, method, domain=domain, general=general, max_rows=max_rows
    )
    if len(larger) == len(base.tokenizer):  # no term was added, and the record says why
        return base if larger is base.tokenizer else base.with_changes(tokenizer=larger)
    return grow(base, larger, init=init, vectors=vectors, corpus=domain, seed=seed)


def _extend_tokenizer(
    base: Tokenizer,
    terms: Terms | Iterable[str],
    method: str | None = None,
    *,
    domain: Iterable[str] | None = None,
    general: Iterable[str] | None = None,
    max_rows: int | None = None,
) -> Tokenizer:
    if isinstance(terms, str):
        raise InputError("terms must be a list, not one string", hint=f"use [{terms!r}]")
    if max_rows is not None and max_rows < 1:
        raise InputError(f"no term fits in {max_rows} rows", hint="max_rows must be at least 1")
    terms = terms if isinstance(terms, Terms) else Terms.of(terms)
    if not terms and not terms.rejected:
        raise InputError("there are no terms to add", hint="pass at least one term")
    if method is None and terms.method in METHODS.get(base.kind, ()):
        method = terms.method
    method = choose_method(base, method)
    forms, refused, notes = prepare_forms(base, terms)
    earlier = {form.text: form for form in base.extension.refused} if base.extension else {}
    refused = [*earlier.values(), *(form for form in refused if form.text not in earlier)]
    forms = [form for form in forms if form.text not in earlier]
    texts = {"domain": domain, "general": general}
    given = {
        name: documents_of(corpus, name) for name, corpus in texts.items() if corpus is not None
    }
    for _ in range(_MAX_ATTEMPTS):
        plan = plan_extension(base, forms, method, general=given.get("general"), max_rows=max_rows)
        result = _verify(base, plan, method, given)
        if not result.failures:
            break
        refused += [Refused(text, reason) for text, reason in result.failures.items()]
        forms = [form for form in forms if form.text not in result.failures]
    else:
        raise VerificationError(
            f"text beyond the terms still changes after {_MAX_ATTEMPTS} attempts with fewer terms",
            hint="try another method, or fewer terms",
        )
    if base.extension and not plan.draft.added:
        return base
    refused += plan.refused
    return _finalize(base, plan.draft, method, refused, result.checks, [*notes, *result.notes])


@dataclass
class _VerificationResult:
    """The result of verifying a plan on text."""

    failures: dict[str, str] = field(default_factory=dict)
    """Texts of the tokens that must be left out, and why."""
    checks: dict[str, Check] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _verify(
    base: Tokenizer, plan: ExtensionPlan, method: str, texts: Mapping[str, Iterable[str]]
) -> _VerificationResult:
    """Verify a plan on text."""
    result = _VerificationResult()
    if plan.partly:
        result.notes.append(
            f"{plan.partly} forms are one token in some contexts only, not next to every symbol"
        )
    added = {token.id: token.text for token in plan.draft.added}
    pieces = {token.id: token.pieces for token in plan.draft.added}
    for name, corpus in texts.items():
        comparison = compare_tokenizers(base, plan.draft.tokenizer, pieces, corpus)
        result.checks[name] = comparison.check
        changes = {"is no longer decoded as before": comparison.decoding_change}
        if method not in _PREFIX_METHODS:
            reason = f"occurs in {name} text that changes beyond the terms"
            result.failures |= {added[id_]: reason for id_ in comparison.causes}
            changes["changes beyond the terms"] = comparison.unexplained
        for what, document in changes.items():
            if not document:
                continue
            if method in _TIE_METHODS and document == comparison.unexplained:
                result.notes.append(
                    f"some words of the {name} text have another, equally likely segmentation: "
                    f"{document[:80]!r}"
                )
            elif responsible := find_responsible_forms(base, plan.forms, method, document):
                reason = f"{name} text {what} because of it: {document[:60]!r}"
                result.failures |= dict.fromkeys(responsible, reason)
            else:
                raise VerificationError(
                    f"{name} text {what}, even without new terms: {document[:80]!r}",
                    hint="try another method: " + ", ".join(METHODS[base.kind]),
                )
    return result


def _finalize(
    base: Tokenizer,
    draft: DraftExtension,
    method: str,
    refused: Sequence[Refused],
    checks: dict[str, Check],
    notes: Sequence[str],
) -> Tokenizer:
    """Attach the record of the extension, combined with that of an earlier extension."""
    earlier = base.extension
    unverified = [
        f"{text} ({purpose}): none was given"
        for name, text, purpose in (
            ("domain", "domain text", "whether the terms are used, and how much they save"),
            ("general", "general text", "whether it keeps its ids"),
        )
        if name not in checks
    ]
    added = tuple(draft.added)
    if earlier:
        in_base_ids = [
            Added(token.id, token.text, tuple(earlier.to_base(list(token.pieces))), token.kind)
            for token in added
        ]
        added = (*earlier.added, *in_base_ids)
    extension = Extension(
        method=method,
        base=earlier.base if earlier else base.fingerprint,
        size=earlier.size if earlier else len(base),
        added=added,
        refused=tuple(refused),
        checks=checks,
        unverified=tuple(unverified),
        notes=tuple(notes),
        replaced=draft.replaced,
    )
    return Tokenizer.from_engine(draft.tokenizer.engine, base.settings, extension)
