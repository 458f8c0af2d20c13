"""The methods that add terms to a tokenizer, one function each.

They leave the tokenization of other text unchanged, with two exceptions: `append`, and the
intermediate tokens of `merges`. Verification measures the actual effect afterwards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tokenizers

from idiolect.text.tokenizers.append import append_pieces
from idiolect.text.tokenizers.extension import Added, Refused
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend.entries import (
    entry_name,
    ignored_merges,
    original_parts,
    published_config,
    unmerged_entries,
)
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


@dataclass(frozen=True)
class DraftExtension:
    """An extended tokenizer that is not yet verified."""

    tokenizer: Tokenizer
    added: Sequence[Added]
    replaced: dict[str, Any] = field(default_factory=dict)
    """Original components of the engine that had to be replaced, by name."""
    refused: Sequence[Refused] = ()


def add_exact(tokenizer: Tokenizer, forms: Sequence[Form]) -> DraftExtension:
    """Add BPE entries without merges: a pre-token in the vocabulary becomes one token.

    This uses the engine's `ignore_merges` option, made for Llama 3. Other pre-tokens are merged as
    before. So that this also holds for an entry of the original vocabulary that its merges never
    produce, a pre-token that spells one is cut in two. In SentencePiece a word and the comma after
    it are one pre-token, so there every term is protected by the split pattern.
    """
    byte_level = tokenizer.kind == "byte-bpe"
    protected = [form for form in forms if form.is_phrase or not byte_level]
    return _add_entries(tokenizer, forms, protected, ignore_merges=True)


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
    phrases = [form for form in forms if form.is_phrase]
    return _add_entries(tokenizer, forms, phrases, values=values)


def add_prefixes(tokenizer: Tokenizer, forms: Sequence[Form]) -> DraftExtension:
    """Add WordPiece entries, which also match the beginning of longer words.

    WordPiece takes the longest match first. `Check.inside_words` counts these uses.
    """
    return _add_entries(tokenizer, forms, ())


def add_words(tokenizer: Tokenizer, forms: Sequence[Form]) -> DraftExtension:
    """Add whole words to a WordPiece tokenizer, matched before the text is pre-tokenized.

    They match only between non-word characters, so longer words are unchanged.
    """
    engine = tokenizers.Tokenizer.from_str(tokenizer.engine.to_str())
    engine.add_tokens(
        [tokenizers.AddedToken(f.normalized, single_word=True, normalized=True) for f in forms]
    )
    ids = {token.content: id_ for id_, token in engine.get_added_tokens_decoder().items()}
    added = [_added(ids[form.normalized], form) for form in forms]
    return DraftExtension(Tokenizer.from_engine(engine, tokenizer.settings), added)


def _added(id_: int, form: Form) -> Added:
    return Added(id_, form.text, form.pieces, "phrase" if form.is_phrase else "word")


def _add_entries(
    tokenizer: Tokenizer,
    forms: Sequence[Form],
    protected: Sequence[Form],
    *,
    values: Sequence[float] = (),
    ignore_merges: bool = False,
) -> DraftExtension:
    """Append entries to the vocabulary, and protect some forms from the pre-tokenizer.

    Args:
        tokenizer: the tokenizer to extend.
        forms: the forms to add, all of which `entries.refusals` accepts.
        protected: the forms that the pre-tokenizer must keep whole.
        values: Unigram scores of the entries.
        ignore_merges: whether BPE emits pre-tokens that are in the vocabulary whole.
    """
    larger = append_pieces(
        tokenizer, [entry_name(tokenizer, form) for form in forms], scores=values
    )
    config = json.loads(larger.engine.to_str())
    cuts: tuple[tuple[str, str], ...] = ()
    unmerged: frozenset[str] = frozenset()
    replaced: dict[str, Any] = {}
    if ignore_merges:
        replaced["ignore_merges"] = ignored_merges(tokenizer)
        config["model"]["ignore_merges"] = True
        unmerged, cuts = unmerged_entries(tokenizer)
    original = original_parts(tokenizer)
    earlier = tokenizer.extension
    whole = {form.normalized for form in protected}
    changes = whole or cuts or (earlier and "pre_tokenizer" in earlier.replaced)
    published = published_config(tokenizer)
    if changes and can_protect_terms(published):
        replaced |= original
        earlier_terms = [
            token.text
            for token in (earlier.added if earlier else ())
            if token.kind == "phrase" or tokenizer.kind == "sentencepiece-bpe"
        ]
        whole |= {normalized for normalized, _ in pretokenize_forms(tokenizer, earlier_terms)}
        vocab = tokenizer.engine.get_vocab(with_added_tokens=True).keys() - unmerged
        protect_terms(published, sorted(whole), vocab if tokenizer.kind != "byte-bpe" else (), cuts)
        config |= {part: published[part] for part in original}
    added = [_added(id_, form) for id_, form in enumerate(forms, len(tokenizer))]
    engine = tokenizers.Tokenizer.from_str(json.dumps(config))
    return DraftExtension(Tokenizer.from_engine(engine, tokenizer.settings), added, replaced)
