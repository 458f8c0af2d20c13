"""`extend`: teach a tokenizer or a model terms, prove it, and say what could not be proved.

>>> larger = extend(tokenizer, ["HbA1c", "metformin"], general=Corpus("books/"))  # doctest: +SKIP
>>> print(larger.extension)  # doctest: +SKIP
4 tokens added by 'exact'
general: 3288 documents, 0.0% fewer tokens, 0 changed beyond the terms, 0 uses inside longer words
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from idiolect.errors import ConfigError, InputError, VerificationError
from idiolect.text.tokenizers.extension import Added, Extension, Refused
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend import methods
from idiolect.vocabulary.extend.folding import fold
from idiolect.vocabulary.extend.verification import check, respelt, unreached
from idiolect.vocabulary.forms import prepare
from idiolect.vocabulary.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from idiolect.models.language_model import LanguageModel
    from idiolect.text.tokenizers.extension import Check
    from idiolect.text.tokenizers.tokenizer import Kind
    from idiolect.vocabulary.extend.methods import Built
    from idiolect.vocabulary.forms import Form
    from idiolect.vocabulary.rows.initial_rows import Init

__all__ = ["METHODS", "extend"]

METHODS: dict[Kind, tuple[str, ...]] = {
    "byte-bpe": ("exact", "merges"),
    "sentencepiece-bpe": ("exact", "merges"),
    "unigram": ("scores",),
    "wordpiece": ("words", "append"),
}
"""The methods of each kind of tokenizer, the default first."""

_BUILDERS: dict[str, Callable[[Tokenizer, Sequence[Form]], Built]] = {
    "exact": methods.exact,
    "scores": methods.scores,
    "words": methods.add_words,
    "append": methods.append,
}
_INEXACT = frozenset({"append"})
"""Methods that by their nature also change words that only begin like a term."""
_TIED = frozenset({"scores"})
"""Methods under which two equally likely cuts of a word may change places: the probability of an
unknown character hangs on the lowest score, and with it how sums are rounded."""
_ROUNDS = 5


@overload
def extend(
    base: Tokenizer,
    terms: Terms | Iterable[str],
    method: str | None = None,
    *,
    domain: Iterable[str] | None = None,
    general: Iterable[str] | None = None,
    rows: int | None = None,
) -> Tokenizer: ...
@overload
def extend(
    base: LanguageModel,
    terms: Terms | Iterable[str],
    method: str | None = None,
    *,
    domain: Iterable[str] | None = None,
    general: Iterable[str] | None = None,
    rows: int | None = None,
    init: Init = "subword",
    seed: int = 0,
) -> LanguageModel: ...
def extend(
    base: Tokenizer | LanguageModel,
    terms: Terms | Iterable[str],
    method: str | None = None,
    *,
    domain: Iterable[str] | None = None,
    general: Iterable[str] | None = None,
    rows: int | None = None,
    init: Init = "subword",
    seed: int = 0,
) -> Tokenizer | LanguageModel:
    """Teach a tokenizer terms, so that each becomes one token, and verify the result.

    Args:
        base: a `Tokenizer`, or a `LanguageModel`, whose network then grows by the rows of the new
            tokens (see `grow`); it stays as it is.
        terms: what `Audit.choose` returned, or plain strings, each then taught with and without
            a space before it.
        method: `exact`: whole words and phrases only, nothing else can change (byte-level and
            SentencePiece BPE). `merges`: merges appended to the list, for runtimes that know
            nothing else; terms of more than two pieces cost more than a row. `scores`: Unigram.
            `words`: whole words in WordPiece. `append`: WordPiece entries, which also match the
            beginnings of longer words. By default the first of those its kind has.
        domain: text of the domain that the terms were not chosen from, to verify on.
        general: other text, to verify that nothing else changed; `merges` also chooses its steps
            by it.
        rows: add at most so many ids.
        init: for a model, how the new rows begin; see `rows`. `neighbours` learns from `domain`.
        seed: for a model, where chance begins.

    Returns:
        A larger tokenizer, or a model with one, whose `extension` is the record of what was
        added, refused and verified. Where nothing is left to add to one that has been extended,
        that one itself.

    Raises:
        InputError: there are no terms, or no such method.
        ConfigError: the tokenizer's algorithm cannot be extended.
        VerificationError: text without the terms, or decoding, would change.
    """
    if isinstance(base, Tokenizer):
        return _extend_tokenizer(base, terms, method, domain=domain, general=general, rows=rows)
    # A bare tokenizer is extended without loading torch.
    from idiolect.vocabulary.rows.grow import grow

    larger = _extend_tokenizer(
        base.tokenizer, terms, method, domain=domain, general=general, rows=rows
    )
    return (
        base
        if larger is base.tokenizer
        else grow(base, larger, init=init, corpus=domain, seed=seed)
    )


def _extend_tokenizer(
    base: Tokenizer,
    terms: Terms | Iterable[str],
    method: str | None = None,
    *,
    domain: Iterable[str] | None = None,
    general: Iterable[str] | None = None,
    rows: int | None = None,
) -> Tokenizer:
    if isinstance(terms, str):
        raise InputError("a list of terms is wanted, not one text", hint=f"give [{terms!r}]")
    terms = terms if isinstance(terms, Terms) else Terms.of(terms)
    if not terms and not terms.left_out:
        raise InputError("there are no terms to add", hint="give at least one")
    method = _method(base, method)
    forms, refused, notes = prepare(base, terms)
    earlier = {form.text: form for form in base.extension.refused} if base.extension else {}
    refused = [*earlier.values(), *(form for form in refused if form.text not in earlier)]
    forms = [form for form in forms if form.text not in earlier]
    if rows is not None and method != "merges":
        refused += [Refused(f.text, f"no row left in a budget of {rows}") for f in forms[rows:]]
        forms = forms[:rows]
    texts = {"domain": domain, "general": general}
    given = {name: corpus for name, corpus in texts.items() if corpus is not None}
    for _ in range(_ROUNDS):
        built = fold(base, forms, general, rows) if method == "merges" else None
        built = built or _BUILDERS[method](base, forms)
        trial = _try(base, built, method, given)
        if not trial.reasons:
            break
        bad = {token.text: trial.reasons.get(token.id) for token in built.added}
        refused += [Refused(text, reason) for text, reason in bad.items() if reason]
        forms = [form for form in forms if not bad.get(form.text)]
    else:
        raise VerificationError(
            f"text still changes beyond the terms after {_ROUNDS} attempts to leave terms out",
            hint="try another method, or fewer terms",
        )
    if base.extension and not built.added:
        return base
    refused += built.refused
    return _record(base, built, method, refused, trial.checks, [*notes, *trial.notes])


@dataclass
class _Trial:
    """What verifying a larger tokenizer found."""

    reasons: dict[int, str]
    """New ids that must go, and why."""
    checks: dict[str, Check] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _try(base: Tokenizer, built: Built, method: str, texts: Mapping[str, Iterable[str]]) -> _Trial:
    """Verify a larger tokenizer; where a term cannot be reached, no text is read yet."""
    failed, partly = unreached(built.tokenizer, built.added)
    trial = _Trial(dict.fromkeys(failed, "no text produces it as one token"))
    pieces = {token.id: token.pieces for token in built.added}
    for id_, text in respelt(base, built.tokenizer, pieces).items():
        trial.reasons[id_] = f"decodes to {text!r}"
    if trial.reasons:
        return trial
    if partly:
        where = "in some places only, not beside every sign"
        trial.notes.append(f"{partly} forms are one token {where}")
    for name, corpus in texts.items():
        verdict = check(base, built.tokenizer, pieces, corpus)
        trial.checks[name] = verdict.check
        if verdict.misread:
            raise VerificationError(
                f"{name} text would no longer be decoded as before: {verdict.misread!r}",
                hint="another method may do: " + ", ".join(METHODS[base.kind]),
            )
        if method in _INEXACT:
            continue
        reason = f"stands in {name} text that changes beyond the terms"
        trial.reasons |= dict.fromkeys(verdict.culprits, reason)
        if verdict.blameless and method in _TIED:
            trial.notes.append(
                f"in {name} text some words have another, equally likely cut: {verdict.blameless!r}"
            )
        elif verdict.blameless:
            raise VerificationError(
                f"{name} text without new terms changes: {verdict.blameless!r}",
                hint="another method may do: " + ", ".join(METHODS[base.kind]),
            )
    return trial


def _method(base: Tokenizer, method: str | None) -> str:
    known = METHODS.get(base.kind)
    if known is None:
        raise ConfigError(
            f"a {base.kind} tokenizer cannot be extended", hint=f"known: {', '.join(METHODS)}"
        )
    if method is not None and method not in known:
        raise InputError(
            f"no method {method!r} for a {base.kind} tokenizer", hint=f"known: {', '.join(known)}"
        )
    return method or known[0]


def _record(
    base: Tokenizer,
    built: Built,
    method: str,
    refused: Sequence[Refused],
    checks: dict[str, Check],
    notes: Sequence[str],
) -> Tokenizer:
    """Attach the record; that of an earlier extension is continued."""
    earlier = base.extension
    unverified = [
        f"{text} ({what}): none was given"
        for name, text, what in (
            ("domain", "domain text", "whether the terms are used, and how much they save"),
            ("general", "general text", "whether it keeps its ids"),
        )
        if name not in checks
    ]
    added = tuple(built.added)
    if earlier:
        flat = [
            Added(token.id, token.text, tuple(earlier.to_base(list(token.pieces))), token.kind)
            for token in added
        ]
        added = (*earlier.added, *flat)
    extension = Extension(
        method=method,
        base=earlier.base if earlier else base.fingerprint,
        size=earlier.size if earlier else len(base),
        added=added,
        refused=tuple(refused),
        checks=checks,
        unverified=tuple(unverified),
        notes=tuple(notes),
        replaced=built.replaced,
    )
    return Tokenizer.from_engine(built.tokenizer.engine, base.settings, extension)
