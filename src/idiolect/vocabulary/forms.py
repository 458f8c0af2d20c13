"""The forms of a term: how a tokenizer encodes them, and which ones can become new tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idiolect.text.tokenizers.extension import Refused
from idiolect.vocabulary.terms import rejection_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.terms import Terms

__all__ = ["Form", "encode_forms", "prepare_forms", "pretokenize_forms"]


@dataclass(frozen=True)
class Form:
    """A string that is to become one token."""

    text: str
    """As in running text, including a leading space if there is one."""
    normalized: str
    """After normalization, in the pre-tokenizer's spelling: `▁` for a space where it uses one."""
    pieces: tuple[int, ...]
    """The ids that encode it now."""
    is_phrase: bool
    """Whether the pre-tokenizer splits it, so that no single vocabulary entry can match it."""


def encode_forms(tokenizer: Tokenizer, forms: Sequence[str]) -> list[list[int]]:
    """Encode strings as they would be encoded inside running text.

    A form with a leading space is encoded after a word, and one without after a punctuation mark.
    Several marks are tried, until one keeps its own id and so did not merge with the form. If all
    of them merge, the form is encoded alone.
    """
    results: list[list[int]] = [[] for _ in forms]
    for spaced, anchors in ((True, "a"), (False, '("!|\n')):
        pending = [i for i, form in enumerate(forms) if form.startswith(" ") is spaced]
        for anchor in anchors:
            prefix = tokenizer.encode(anchor, add_special_tokens=False)
            texts = [anchor + forms[i] for i in pending]
            merged = []
            for i, ids in zip(
                pending, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True
            ):
                if ids[: len(prefix)] == prefix:
                    results[i] = ids[len(prefix) :]
                else:
                    merged.append(i)
            pending = merged
        alone = tokenizer.encode_batch([forms[i] for i in pending], add_special_tokens=False)
        for i, ids in zip(pending, alone, strict=True):
            results[i] = ids
    return results


def pretokenize_forms(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[str, int]]:
    """Normalize and pre-tokenize strings as they would be inside running text.

    Returns:
        For each text its normalized form and the number of pre-tokens it is split into.
    """
    engine = tokenizer.engine

    def pretokens(text: str) -> list[str]:
        if engine.normalizer is not None:
            text = engine.normalizer.normalize_str(text)
        if engine.pre_tokenizer is None:
            return [text]
        return [part for part, _ in engine.pre_tokenizer.pre_tokenize_str(text)]

    results = []
    for text in texts:
        if tokenizer.kind in ("byte-bpe", "wordpiece"):
            normalized = text if tokenizer.kind == "byte-bpe" else text.strip()
            if engine.normalizer is not None:
                normalized = engine.normalizer.normalize_str(normalized)
            results.append((normalized, len(pretokens(text))))
            continue
        anchor = "a" if text.startswith(" ") else "("
        prefix, joined = pretokens(anchor), pretokens(anchor + text)
        if joined[: len(prefix)] == prefix:
            rest = joined[len(prefix) :]
        else:
            rest = [joined[0].removeprefix(prefix[-1]), *joined[1:]]
        results.append(("".join(rest), len(rest)))
    return results


def prepare_forms(
    tokenizer: Tokenizer, terms: Terms
) -> tuple[list[Form], list[Refused], list[str]]:
    """Select the forms of the terms that can become tokens.

    Returns:
        The forms, the refused ones with a reason, and notes about the effect of normalization.
    """
    refused = [Refused(term.text, term.reason) for term in terms.rejected]
    texts = []
    for text in terms.forms:
        if reason := rejection_reason(text.strip()):
            refused.append(Refused(text, reason))
        elif any(len(name) > 1 and name in text for name in tokenizer.special_tokens):
            refused.append(Refused(text, "contains the name of a special token"))
        else:
            texts.append(text)
    encoded = encode_forms(tokenizer, texts)
    forms: dict[str, Form] = {}
    changed = []
    for text, ids, (normalized, count) in zip(
        texts, encoded, pretokenize_forms(tokenizer, texts), strict=True
    ):
        if not normalized.strip("▁ ") or not ids:
            refused.append(Refused(text, "empty after normalization"))
        elif len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            refused.append(Refused(text, "already one token"))
        else:
            # Forms that normalize alike share a token: WordPiece drops the space of `␣term`.
            forms.setdefault(normalized, Form(text, normalized, tuple(ids), count > 1))
            if normalized.replace("▁", " ").strip() != text.strip():
                changed.append((text.strip(), normalized.replace("▁", " ").strip()))
    notes = []
    if changed:
        (text, normalized), *_ = changed
        notes.append(
            f"the normalizer changes {len(changed)} forms, such as {text!r} to {normalized!r}; "
            "the new tokens match the normalized text"
        )
    return list(forms.values()), refused, notes
