"""Find the strings that can become vocabulary entries, and the entries that are never produced."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import tokenizers

from idiolect.errors import InputError
from idiolect.text.tokenizers.byte_level import to_bytes, to_characters
from idiolect.text.tokenizers.word_counts import fixed_ids
from idiolect.vocabulary.extend.protected_terms import can_protect_terms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.forms import Form

__all__ = [
    "can_keep_phrases",
    "entry_name",
    "ignored_merges",
    "original_parts",
    "published_config",
    "refusals",
    "unmerged_entries",
]

_REPLACED = ("normalizer", "pre_tokenizer", "decoder")


def original_parts(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the published versions of the engine components that an extension replaces."""
    config = json.loads(tokenizer.engine.to_str())
    earlier = tokenizer.extension.replaced if tokenizer.extension else {}
    return copy.deepcopy({part: earlier.get(part, config[part]) for part in _REPLACED})


def published_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the JSON of the published engine, without any extension.

    It decides how the pre-tokenizer can be changed. In an extended engine, new entries such as
    `▁New▁York` would make the pre-tokenizer look like another type.
    """
    config: dict[str, Any] = json.loads(_published_json(tokenizer))
    return config


@lru_cache(maxsize=2)
def _published_json(tokenizer: Tokenizer) -> str:
    config = json.loads(tokenizer.engine.to_str()) | original_parts(tokenizer)
    if tokenizer.extension:
        size, model = tokenizer.extension.size, config["model"]
        if isinstance(model["vocab"], list):
            model["vocab"] = model["vocab"][:size]
        else:
            vocab = {entry: id_ for entry, id_ in model["vocab"].items() if id_ < size}
            model["vocab"] = vocab
            if "merges" in model:
                model["merges"] = [m for m in model["merges"] if vocab.keys() >= {*m, "".join(m)}]
        if model["type"] == "BPE":
            model["ignore_merges"] = ignored_merges(tokenizer)
        config["added_tokens"] = [t for t in config["added_tokens"] if t["id"] < size]
    return json.dumps(config)


def ignored_merges(tokenizer: Tokenizer) -> bool:
    """Return whether the published BPE tokenizer has `ignore_merges` set.

    It then emits a pre-token that is in the vocabulary as one token, without merging.
    """
    if tokenizer.extension and "ignore_merges" in tokenizer.extension.replaced:
        return bool(tokenizer.extension.replaced["ignore_merges"])
    return bool(json.loads(tokenizer.engine.to_str())["model"].get("ignore_merges", False))


def can_keep_phrases(tokenizer: Tokenizer, method: str) -> bool:
    """Return whether a method can add terms that the pre-tokenizer splits."""
    if method in ("merges", "append"):
        return False
    return method == "words" or can_protect_terms(published_config(tokenizer))


def entry_name(tokenizer: Tokenizer, form: Form) -> str:
    """Return the vocabulary entry of a form."""
    if tokenizer.kind == "byte-bpe":
        return to_characters(form.normalized.encode())
    return form.normalized


def refusals(tokenizer: Tokenizer, forms: Sequence[Form], method: str) -> dict[str, str]:
    """Find the forms that a method cannot add, regardless of the other forms.

    Returns:
        The reason for each of these forms, by its text.
    """
    vocab = tokenizer.engine.get_vocab(with_added_tokens=True)
    fixed = fixed_ids(tokenizer.engine) if method == "merges" else set()
    phrases = can_keep_phrases(tokenizer, method)
    protects = method == "exact" and tokenizer.kind == "sentencepiece-bpe"
    prefix = getattr(tokenizer.engine.model, "continuing_subword_prefix", None) or "\0"
    names: dict[str, str] = {}
    found: dict[str, str] = {}
    for form in forms:
        name = entry_name(tokenizer, form)
        if not phrases and (form.is_phrase or protects):
            found[form.text] = (
                "crosses a pre-token boundary, which this type of pre-tokenizer or method needs"
            )
        elif method == "merges":
            if fixed.intersection(form.pieces):
                found[form.text] = "contains characters outside the vocabulary"
        elif name in vocab:
            found[form.text] = "a vocabulary entry that the tokenizer never produces"
        elif method == "append" and name.startswith(prefix):
            found[form.text] = (
                f"would become an entry for the inside of words, because of {prefix!r}"
            )
        elif names.setdefault(name, form.text) != form.text:
            found[form.text] = f"identical to {names[name]!r}"
    return found


@lru_cache(maxsize=2)
def unmerged_entries(tokenizer: Tokenizer) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """Find the entries of a BPE vocabulary that its merges do not produce.

    Returns:
        These entries; and the pre-tokens that `ignore_merges` would turn into one of them. Each is
        given as two parts, which the merges encode with the same ids as the whole.
    """
    if ignored_merges(tokenizer):
        return frozenset(), ()
    model = json.loads(tokenizer.engine.to_str())["model"] | {"ignore_merges": False}
    bare: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
    }
    bare |= dict.fromkeys((*_REPLACED, "post_processor"))
    bare |= {"model": model, "pre_tokenizer": original_parts(tokenizer)["pre_tokenizer"]}
    published = tokenizers.Tokenizer.from_str(json.dumps(bare))
    merging = published.model
    first_new = tokenizer.extension.size if tokenizer.extension else len(tokenizer)
    vocab = tokenizer.engine.get_vocab(with_added_tokens=True)

    def pieces(entry: str) -> list[str]:
        return [token.value for token in merging.tokenize(entry)]

    unmerged = frozenset(e for e, i in vocab.items() if i < first_new and pieces(e) != [e])
    cuts = []
    for entry in sorted(unmerged):
        byte_level = tokenizer.kind == "byte-bpe"
        text = _text_of(entry) if byte_level else entry
        if byte_level and not (text and _is_pre_token(published, text)):
            continue
        for first, second in _halves(text):
            names = (first, second)
            if byte_level:
                names = (to_characters(first.encode()), to_characters(second.encode()))
            if [*pieces(names[0]), *pieces(names[1])] == pieces(entry):
                cuts.append((first, second))
                break
    return unmerged, tuple(cuts)


def _text_of(entry: str) -> str:
    """Return the text of a byte-level entry; empty for a partial character or a special token."""
    try:
        return to_bytes(entry).decode()
    except (ValueError, InputError):
        return ""


def _is_pre_token(engine: tokenizers.Tokenizer, text: str) -> bool:
    cutter = engine.pre_tokenizer
    return cutter is None or len(cutter.pre_tokenize_str(text)) == 1


def _halves(text: str) -> Iterator[tuple[str, str]]:
    for i in range(1, len(text)):
        yield text[:i], text[i:]
