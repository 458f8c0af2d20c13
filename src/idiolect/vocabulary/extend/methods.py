"""How each kind of tokenizer is taught a term: one small function a method.

None of them changes what other text becomes,
except `append`, and `merges` by the steps it needs; what really happened is measured afterwards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tokenizers

from idiolect.text.tokenizers.append import append_pieces
from idiolect.text.tokenizers.byte_level import to_characters
from idiolect.text.tokenizers.extension import Added, Refused
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend.borders import isolate, isolates
from idiolect.vocabulary.forms import see

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.vocabulary.forms import Form

__all__ = ["Built", "add_words", "append", "exact", "scores"]

_MARGIN = 5e-4
"""By how much a new Unigram piece beats the pieces it is made of, for each place where it joins
two and once more: enough to win against them, and against smaller new pieces that lie in it, but
too little to win against anything else (in natural logarithms of probability)."""


@dataclass(frozen=True)
class Built:
    """A larger tokenizer, not yet verified."""

    tokenizer: Tokenizer
    added: Sequence[Added]
    refused: Sequence[Refused]
    replaced: dict[str, Any] = field(default_factory=dict)
    """Parts of the pipeline as they were, where they had to be replaced."""


def exact(tokenizer: Tokenizer, forms: Sequence[Form]) -> Built:
    """Add BPE entries without merges: a pre-token in the vocabulary is emitted whole.

    That is the engine's `ignore_merges`, made for Llama 3. Every other pre-token takes the old
    path, so nothing else can change, unless the base vocabulary holds a word that its own merges
    do not build; verification would find it. With SentencePiece a word and the comma after it are
    one pre-token, so there every term is kept apart by the pattern that cuts.
    """
    byte_level = tokenizer.kind == "byte-bpe"
    apart = [form for form in forms if form.phrase or not byte_level]
    names = [to_characters(form.seen.encode()) if byte_level else form.seen for form in forms]
    return _grow(tokenizer, forms, names, apart, ignore_merges=True)


def scores(tokenizer: Tokenizer, forms: Sequence[Form]) -> Built:
    """Add Unigram pieces, each just more likely than the pieces it is made of now.

    So it wins where those would have been used, and only there; with a higher score it would
    also change the words around it.
    """
    model = json.loads(tokenizer.engine.to_str())["model"]
    known = [score for _, score in model["vocab"]]
    # Beyond the vocabulary lie added tokens; the unknown piece costs what the engine takes.
    unknown = min(known) - 10.0
    values = [
        sum(
            unknown if piece == model["unk_id"] or piece >= len(known) else known[piece]
            for piece in form.pieces
        )
        + _MARGIN * (2 * len(form.pieces) - 1)
        for form in forms
    ]
    return _grow(tokenizer, forms, [form.seen for form in forms], _phrases(forms), values=values)


def append(tokenizer: Tokenizer, forms: Sequence[Form]) -> Built:
    """Add WordPiece entries; they also match where a longer word begins with them.

    That is how WordPiece works, longest match first, and what the uses inside longer words in the
    record count.
    """
    refused = [
        Refused(form.text, "crosses a border of the pre-tokenizer") for form in forms if form.phrase
    ]
    kept = [form for form in forms if not form.phrase]
    built = _grow(tokenizer, kept, [form.seen for form in kept], ())
    return Built(built.tokenizer, built.added, [*built.refused, *refused])


def add_words(tokenizer: Tokenizer, forms: Sequence[Form]) -> Built:
    """Add whole words to a WordPiece tokenizer: found in the text before it is cut into pieces.

    Only between characters that belong to no word, so longer words stay what they were.
    """
    engine = tokenizers.Tokenizer.from_str(tokenizer.engine.to_str())
    engine.add_tokens(
        [tokenizers.AddedToken(f.seen, single_word=True, normalized=True) for f in forms]
    )
    added = []
    refused = []
    for form in forms:
        id_ = engine.token_to_id(form.seen)
        if id_ is None or id_ < len(tokenizer):
            refused.append(Refused(form.text, "an entry of the vocabulary that is never reached"))
        else:
            added.append(Added(id_, form.text, form.pieces, "phrase" if form.phrase else "word"))
    return Built(Tokenizer.from_engine(engine, tokenizer.settings), added, refused)


def _phrases(forms: Sequence[Form]) -> list[Form]:
    return [form for form in forms if form.phrase]


def _grow(
    tokenizer: Tokenizer,
    forms: Sequence[Form],
    names: Sequence[str],
    apart: Sequence[Form],
    *,
    values: Sequence[float] = (),
    ignore_merges: bool = False,
) -> Built:
    """Append entries to the vocabulary, and keep some forms apart from the text around them."""
    vocab = tokenizer.engine.get_vocab(with_added_tokens=True)
    base = json.loads(tokenizer.engine.to_str())
    original = base
    earlier = tokenizer.extension
    if earlier and earlier.replaced:
        original = base | earlier.replaced
    cannot = bool(apart) and not isolates(original)
    kept: dict[str, int] = {}
    refused = []
    for i, (form, name) in enumerate(zip(forms, names, strict=True)):
        if cannot and form in apart:
            refused.append(Refused(form.text, "crosses a border of a pre-tokenizer of this kind"))
        elif name in vocab:
            refused.append(Refused(form.text, "an entry of the vocabulary that is never reached"))
        elif kept.setdefault(name, i) != i:
            refused.append(Refused(form.text, f"spelt like {forms[kept[name]].text!r}"))
    chosen = list(kept.values())
    larger = append_pieces(
        tokenizer, list(kept), scores=[values[i] for i in chosen] if values else ()
    )
    pipeline = json.loads(larger.engine.to_str())
    if ignore_merges:
        pipeline["model"]["ignore_merges"] = True
    terms = [forms[i] for i in chosen]
    alone = {form.seen for form in apart} & {form.seen for form in terms}
    replaced: dict[str, Any] = {}
    if alone or (earlier and earlier.replaced):
        replaced = {part: original[part] for part in ("normalizer", "pre_tokenizer", "decoder")}
        pipeline |= json.loads(json.dumps(replaced))
        apart_before = [
            token.text
            for token in (earlier.added if earlier else ())
            if token.kind == "phrase" or tokenizer.kind == "sentencepiece-bpe"
        ]
        alone |= {seen for seen, _ in see(tokenizer, apart_before)}
        isolate(pipeline, sorted(alone), vocab if tokenizer.kind != "byte-bpe" else ())
    added = [
        Added(len(tokenizer) + n, form.text, form.pieces, "phrase" if form.phrase else "word")
        for n, form in enumerate(terms)
    ]
    engine = tokenizers.Tokenizer.from_str(json.dumps(pipeline))
    return Built(Tokenizer.from_engine(engine, tokenizer.settings), added, refused, replaced)
