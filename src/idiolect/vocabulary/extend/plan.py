"""Plan an extension: what a method can add to a tokenizer, before any text is read.

`audit` chooses terms by this plan and `extend` carries it out, so both count the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idiolect.errors import ConfigError, InputError
from idiolect.text.tokenizers.extension import Refused
from idiolect.vocabulary.extend import methods
from idiolect.vocabulary.extend.entries import refusals
from idiolect.vocabulary.extend.merge_method import add_merges
from idiolect.vocabulary.extend.methods import DraftExtension
from idiolect.vocabulary.extend.verification import find_decoding_changes, find_unreachable_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from idiolect.text.tokenizers.engine_identity import Kind
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.forms import Form

__all__ = ["METHODS", "ExtensionPlan", "choose_method", "draft_extension", "plan_extension"]

METHODS: dict[Kind, tuple[str, ...]] = {
    "byte-bpe": ("exact", "merges"),
    "sentencepiece-bpe": ("exact", "merges"),
    "unigram": ("scores",),
    "wordpiece": ("words", "append"),
}
"""Methods by kind of tokenizer, default first."""

_BUILDERS: dict[str, Callable[[Tokenizer, Sequence[Form]], DraftExtension]] = {
    "exact": methods.add_exact,
    "scores": methods.add_scored,
    "words": methods.add_words,
    "append": methods.add_prefixes,
}


@dataclass(frozen=True)
class ExtensionPlan:
    """The terms that can be added to a tokenizer, and the tokenizer with them."""

    draft: DraftExtension
    forms: tuple[Form, ...]
    """The forms it adds."""
    refused: tuple[Refused, ...]
    """The forms that cannot be added, or have no row left."""
    partly: int
    """Forms that become one token in some contexts only."""


def choose_method(tokenizer: Tokenizer, method: str | None = None) -> str:
    """Return a method that a tokenizer supports, by default the first one.

    Raises:
        ConfigError: this kind of tokenizer cannot be extended, or an earlier extension rules out
            the method.
        InputError: this kind of tokenizer has no such method.
    """
    known = METHODS.get(tokenizer.kind)
    if known is None:
        raise ConfigError(
            f"a {tokenizer.kind} tokenizer cannot be extended",
            hint=f"supported: {', '.join(METHODS)}",
        )
    if method is not None and method not in known:
        raise InputError(
            f"no method {method!r} for a {tokenizer.kind} tokenizer",
            hint=f"supported: {', '.join(known)}",
        )
    if method == "append" and tokenizer.extension and tokenizer.extension.method == "words":
        # Whole words added earlier would then also match the beginning of longer words.
        raise ConfigError(
            "a tokenizer extended by 'words' cannot be extended by 'append'",
            hint="use 'words' again, or extend the original tokenizer",
        )
    return method or known[0]


def draft_extension(
    base: Tokenizer,
    forms: Sequence[Form],
    method: str,
    general: Iterable[str] | None = None,
    max_rows: int | None = None,
) -> DraftExtension:
    """Add forms, all of which `refusals` accepts, to a tokenizer."""
    if method == "merges":
        return add_merges(base, forms, general, max_rows)
    return _BUILDERS[method](base, forms)


def plan_extension(
    base: Tokenizer,
    forms: Sequence[Form],
    method: str,
    *,
    general: Iterable[str] | None = None,
    max_rows: int | None = None,
) -> ExtensionPlan:
    """Find out which forms can be added, by adding them and encoding and decoding each.

    Args:
        base: the tokenizer to extend.
        forms: the forms, most useful first. One that cannot be added takes no row.
        method: one of `METHODS`.
        general: for `merges`, text in which intermediate tokens should be rare.
        max_rows: maximum number of new ids.
    """
    reasons = refusals(base, forms, method)
    while True:
        possible = [form for form in forms if form.text not in reasons]
        kept = possible if max_rows is None or method == "merges" else possible[:max_rows]
        draft = draft_extension(base, kept, method, general, max_rows)
        failed, partly = find_unreachable_tokens(draft.tokenizer, draft.added)
        pieces = {token.id: token.pieces for token in draft.added}
        decoded = find_decoding_changes(base, draft.tokenizer, pieces)
        texts = {token.id: token.text for token in draft.added}
        found = {texts[id_]: "no text produces it as one token" for id_ in failed}
        found |= {texts[id_]: f"decodes to {text!r}" for id_, text in decoded.items()}
        new = {form.text: found[form.text] for form in kept if form.text in found}
        if not new:
            break
        reasons |= new
    if not draft.added:
        draft = DraftExtension(base, (), refused=draft.refused)
    added = {token.text for token in draft.added}
    left_over = {
        form.text: f"no row left in a budget of {max_rows}" for form in possible[len(kept) :]
    }
    left_over |= {form.text: form.reason for form in draft.refused}
    reasons |= left_over
    return ExtensionPlan(
        draft,
        tuple(form for form in kept if form.text in added),
        tuple(Refused(form.text, reasons[form.text]) for form in forms if form.text in reasons),
        partly,
    )
