"""Forms of terms as a tokenizer sees them, and which of them can be taught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idiolect.text.tokenizers.extension import Refused
from idiolect.vocabulary.audit.census import encode_forms
from idiolect.vocabulary.terms import objection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.terms import Terms

__all__ = ["Form", "prepare", "see"]


@dataclass(frozen=True)
class Form:
    """A stretch of text that is to become one token."""

    text: str
    """As in running text, with the space before it if any."""
    seen: str
    """As the pre-tokenizer sees it: normalised, with `▁` for spaces where there is one."""
    pieces: tuple[int, ...]
    """Ids it is made of now."""
    phrase: bool
    """Whether it crosses a border of the pre-tokenizer."""


def see(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[str, int]]:
    """Say what the pre-tokenizer makes of texts inside running text.

    Returns:
        For each text what is seen of it, and into how many parts it is cut.
    """
    engine = tokenizer.engine

    def parts(text: str) -> list[str]:
        if engine.normalizer is not None:
            text = engine.normalizer.normalize_str(text)
        if engine.pre_tokenizer is None:
            return [text]
        return [part for part, _ in engine.pre_tokenizer.pre_tokenize_str(text)]

    results = []
    for text in texts:
        if tokenizer.kind in ("byte-bpe", "wordpiece"):
            seen = text if tokenizer.kind == "byte-bpe" else text.strip()
            if engine.normalizer is not None:
                seen = engine.normalizer.normalize_str(seen)
            results.append((seen, len(parts(text))))
            continue
        anchor = "a" if text.startswith(" ") else "("
        before, both = parts(anchor), parts(anchor + text)
        if both[: len(before)] == before:
            rest = both[len(before) :]
        else:
            rest = [both[0].removeprefix(before[-1]), *both[1:]]
        results.append(("".join(rest), len(rest)))
    return results


def prepare(tokenizer: Tokenizer, terms: Terms) -> tuple[list[Form], list[Refused], list[str]]:
    """Find the forms that can become tokens.

    Returns:
        The forms, those that cannot with the reason, and notes on what the normaliser does.
    """
    refused = [Refused(term.text, term.reason) for term in terms.left_out]
    texts = []
    for text in terms.forms:
        if reason := objection(text.strip()):
            refused.append(Refused(text, reason))
        else:
            texts.append(text)
    pieces = encode_forms(tokenizer, texts)
    unknown = tokenizer.unk_id
    forms: dict[str, Form] = {}
    respelt = []
    for text, ids, (seen, cuts) in zip(texts, pieces, see(tokenizer, texts), strict=True):
        if not seen.strip("▁ ") or not ids:
            refused.append(Refused(text, "the normaliser leaves nothing of it"))
        elif len(ids) == 1 and ids[0] != unknown:
            refused.append(Refused(text, "already one token"))
        else:
            # What is seen alike becomes one token, such as `term` and `␣term` for WordPiece.
            forms.setdefault(seen, Form(text, seen, tuple(ids), cuts > 1))
            if seen.replace("▁", " ").strip() != text.strip():
                respelt.append((text.strip(), seen.replace("▁", " ").strip()))
    notes = []
    if respelt:
        (text, seen), *_ = respelt
        notes.append(
            f"the normaliser respells {len(respelt)} forms, such as {text!r} as {seen!r}; "
            "the tokens stand for what it makes of them"
        )
    return list(forms.values()), refused, notes
