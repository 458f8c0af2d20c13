"""The methods that add terms to a tokenizer, one function each.

They leave the tokenization of other text unchanged, with two exceptions: `append`, and the
intermediate tokens of `merges`. Verification measures the actual effect afterwards.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tokenizers

from idiolect.text.tokenizers.append import append_pieces
from idiolect.text.tokenizers.byte_level import to_characters
from idiolect.text.tokenizers.extension import Added, Refused
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend.protected_terms import can_protect_terms, protect_terms
from idiolect.vocabulary.forms import pretokenize_forms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.vocabulary.forms import Form

__all__ = ["DraftExtension", "add_exact", "add_prefixes", "add_scored", "add_words"]

_SCORE_MARGIN = 5e-4
"""Log-probability (natural) by which a new Unigram piece exceeds the sum of its pieces' scores,
multiplied by twice their number minus one. It is enough to win against those pieces and against
shorter new pieces inside it, and too little to win against any other segmentation."""

_UNUSED_ENTRY = "a vocabulary entry that the tokenizer never produces"


@dataclass(frozen=True)
class DraftExtension:
    """An extended tokenizer that is not yet verified."""

    tokenizer: Tokenizer
    added: Sequence[Added]
    refused: Sequence[Refused]
    replaced: dict[str, Any] = field(default_factory=dict)
    """Original components of the engine that had to be replaced, by name."""


def add_exact(tokenizer: Tokenizer, forms: Sequence[Form]) -> DraftExtension:
    """Add BPE entries without merges: a pre-token in the vocabulary becomes one token.

    This uses the engine's `ignore_merges` option, made for Llama 3. Other pre-tokens are merged as
    before. The exception is a word of the original vocabulary that its merges never produce, which
    verification detects. In SentencePiece a word and the comma after it are one pre-token, so
    there every term is protected by the split pattern.
    """
    byte_level = tokenizer.kind == "byte-bpe"
    protected = [form for form in forms if form.is_phrase or not byte_level]
    names = [
        to_characters(form.normalized.encode()) if byte_level else form.normalized for form in forms
    ]
    return _add_entries(tokenizer, forms, names, protected, ignore_merges=True)


def add_scored(tokenizer: Tokenizer, forms: Sequence[Form]) -> DraftExtension:
    """Add Unigram pieces, each slightly more likely than the pieces that encode it now.

    So a new piece replaces exactly those. With a higher score it would also change the
    segmentation of the words around it.
    """
    model = json.loads(tokenizer.engine.to_str())["model"]
    known = [score for _, score in model["vocab"]]
    # The engine scores the unknown piece 10 below the minimum. Added tokens have no score.
    unknown = min(known) - 10.0
    values = [
        sum(
            unknown if piece == model["unk_id"] or piece >= len(known) else known[piece]
            for piece in form.pieces
        )
        + _SCORE_MARGIN * (2 * len(form.pieces) - 1)
        for form in forms
    ]
    names = [form.normalized for form in forms]
    phrases = [form for form in forms if form.is_phrase]
    return _add_entries(tokenizer, forms, names, phrases, values=values)


def add_prefixes(tokenizer: Tokenizer, forms: Sequence[Form]) -> DraftExtension:
    """Add WordPiece entries, which also match the beginning of longer words.

    WordPiece takes the longest match first. `Check.inside_words` counts these uses.
    """
    refused = [
        Refused(form.text, "crosses a pre-token boundary") for form in forms if form.is_phrase
    ]
    kept = [form for form in forms if not form.is_phrase]
    draft = _add_entries(tokenizer, kept, [form.normalized for form in kept], ())
    return DraftExtension(draft.tokenizer, draft.added, [*draft.refused, *refused])


def add_words(tokenizer: Tokenizer, forms: Sequence[Form]) -> DraftExtension:
    """Add whole words to a WordPiece tokenizer, matched before the text is pre-tokenized.

    They match only between non-word characters, so longer words are unchanged.
    """
    engine = tokenizers.Tokenizer.from_str(tokenizer.engine.to_str())
    engine.add_tokens(
        [tokenizers.AddedToken(f.normalized, single_word=True, normalized=True) for f in forms]
    )
    added = []
    refused = []
    for form in forms:
        id_ = engine.token_to_id(form.normalized)
        if id_ is None or id_ < len(tokenizer):
            refused.append(Refused(form.text, _UNUSED_ENTRY))
        else:
            added.append(_added(id_, form))
    return DraftExtension(Tokenizer.from_engine(engine, tokenizer.settings), added, refused)


def _added(id_: int, form: Form) -> Added:
    return Added(id_, form.text, form.pieces, "phrase" if form.is_phrase else "word")


def _add_entries(
    tokenizer: Tokenizer,
    forms: Sequence[Form],
    names: Sequence[str],
    protected: Sequence[Form],
    *,
    values: Sequence[float] = (),
    ignore_merges: bool = False,
) -> DraftExtension:
    """Append entries to the vocabulary, and protect some forms from the pre-tokenizer.

    Args:
        tokenizer: the tokenizer to extend.
        forms: the forms to add.
        names: the vocabulary entry of each form.
        protected: the forms that the pre-tokenizer must keep whole.
        values: Unigram scores of the entries.
        ignore_merges: whether BPE emits pre-tokens that are in the vocabulary whole.
    """
    vocab = tokenizer.engine.get_vocab(with_added_tokens=True)
    original = json.loads(tokenizer.engine.to_str())
    earlier = tokenizer.extension
    if earlier and earlier.replaced:
        original |= earlier.replaced
    unsupported = bool(protected) and not can_protect_terms(original)
    kept: dict[str, int] = {}
    refused = []
    for i, (form, name) in enumerate(zip(forms, names, strict=True)):
        if unsupported and form in protected:
            reason = "this type of pre-tokenizer cannot be changed to keep it whole"
            refused.append(Refused(form.text, reason))
        elif name in vocab:
            refused.append(Refused(form.text, _UNUSED_ENTRY))
        elif kept.setdefault(name, i) != i:
            refused.append(Refused(form.text, f"identical to {forms[kept[name]].text!r}"))
    chosen = list(kept.values())
    larger = append_pieces(
        tokenizer, list(kept), scores=[values[i] for i in chosen] if values else ()
    )
    config = json.loads(larger.engine.to_str())
    if ignore_merges:
        config["model"]["ignore_merges"] = True
    terms = [forms[i] for i in chosen]
    whole = {form.normalized for form in protected} & {form.normalized for form in terms}
    replaced: dict[str, Any] = {}
    if whole or (earlier and earlier.replaced):
        replaced = {part: original[part] for part in ("normalizer", "pre_tokenizer", "decoder")}
        config |= copy.deepcopy(replaced)
        earlier_terms = [
            token.text
            for token in (earlier.added if earlier else ())
            if token.kind == "phrase" or tokenizer.kind == "sentencepiece-bpe"
        ]
        whole |= {normalized for normalized, _ in pretokenize_forms(tokenizer, earlier_terms)}
        protect_terms(config, sorted(whole), vocab if tokenizer.kind != "byte-bpe" else ())
    added = [_added(id_, form) for id_, form in enumerate(terms, len(tokenizer))]
    engine = tokenizers.Tokenizer.from_str(json.dumps(config))
    return DraftExtension(
        Tokenizer.from_engine(engine, tokenizer.settings), added, refused, replaced
    )
