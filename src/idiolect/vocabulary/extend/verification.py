"""Verify an extended tokenizer on real text, before it is returned.

- Replacing each new id by its original pieces restores the original ids. So text without new terms
  keeps its ids, and nothing changes around the terms.
- Decoding returns the same text as before.
- Every new term is one token in context.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from idiolect.text.tokenizers.extension import Check
from idiolect.text.tokenizers.word_counts import batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from idiolect.text.tokenizers.extension import Added
    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = [
    "CorpusComparison",
    "compare_tokenizers",
    "find_decoding_changes",
    "find_unreachable_tokens",
]

_CONTEXTS = {
    True: ("a{} b", "the{} and", "){} (", "a{}.", "a{},"),
    False: ("{} b", "({})", "\n{}\n"),
}
"""Contexts to try for a form with a leading space, and for one without. In one of them, a longer
term may start with the preceding word and win."""


@dataclass
class CorpusComparison:
    """The differences between two tokenizers on a corpus, and the new ids that cause them."""

    check: Check
    causes: set[int] = field(default_factory=set)
    """New ids near which the tokenization changes beyond the terms."""
    unexplained: str = ""
    """A document that changed without a new id nearby; empty if there is none."""
    decoding_change: str = ""
    """A document that is no longer decoded as before; empty if there is none."""


def find_unreachable_tokens(larger: Tokenizer, added: Sequence[Added]) -> tuple[set[int], int]:
    """Find new ids that encoding their text in context does not produce.

    Returns:
        These ids, and the number of other ids that only some of the contexts produce.
    """
    failed = set()
    partly = 0
    for spaced, contexts in _CONTEXTS.items():
        tokens = [t for t in added if t.kind != "part" and t.text.startswith(" ") is spaced]
        reached = [
            [token.id in ids for token, ids in zip(tokens, encoded, strict=True)]
            for context in contexts
            for encoded in [
                larger.encode_batch(
                    [context.format(t.text) for t in tokens], add_special_tokens=False
                )
            ]
        ]
        for i, token in enumerate(tokens):
            found = [in_context[i] for in_context in reached]
            if not any(found):
                failed.add(token.id)
            elif not all(found):
                partly += 1
    return failed, partly


def find_decoding_changes(
    base: Tokenizer, larger: Tokenizer, pieces: Mapping[int, Sequence[int]]
) -> dict[int, str]:
    """Find new ids that decode to different text than their pieces, ignoring whitespace.

    For example, the WordPiece decoder cleans up each token, and decodes `do not` as "don't".

    Returns:
        The decoded text of each such id.
    """
    anchor = base.encode("a", add_special_tokens=False)
    known = {i: p for i, p in pieces.items() if base.unk_token_id not in p}
    before = base.decode_batch([[*anchor, *p] for p in known.values()], skip_special_tokens=False)
    after = larger.decode_batch([[*anchor, i] for i in known], skip_special_tokens=False)
    return {
        i: new[1:].strip()
        for i, old, new in zip(known, before, after, strict=True)
        if "".join(old.split()) != "".join(new.split())
    }


def compare_tokenizers(
    base: Tokenizer, larger: Tokenizer, pieces: Mapping[int, Sequence[int]], corpus: Iterable[str]
) -> CorpusComparison:
    """Compare a tokenizer and its extension on a corpus.

    Args:
        base: the original tokenizer.
        larger: the extended tokenizer.
        pieces: for each new id, the ids of `base` that it replaces.
        corpus: the documents, read in batches.
    """
    size = len(base)
    documents = changed = decoding_changes = with_terms = uses = inside = before = after = 0
    used: set[int] = set()
    causes: set[int] = set()
    unexplained = decoding_change = ""
    for texts in batches(corpus):
        old = base.encode_batch(texts, add_special_tokens=False)
        located = larger.encode_with_offsets(texts, add_special_tokens=False)
        new = [ids for ids, _ in located]
        different = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        old_texts = base.decode_batch([old[i] for i in different], skip_special_tokens=False)
        new_texts = larger.decode_batch([new[i] for i in different], skip_special_tokens=False)
        changes = [
            texts[i]
            for i, a, b in zip(different, old_texts, new_texts, strict=True)
            if base.unk_token_id not in old[i] and _decodes_worse(texts[i], a, b)
        ]
        decoding_change = decoding_change or (changes[0] if changes else "")
        decoding_changes += len(changes)
        documents += len(texts)
        before += sum(map(len, old))
        after += sum(map(len, new))
        for i in different:
            new_uses = [(position, id_) for position, id_ in enumerate(new[i]) if id_ >= size]
            nearby = _ids_near_change(old[i], new[i], pieces)
            if nearby is not None:
                changed += 1
                causes |= nearby
                if not nearby:
                    unexplained = unexplained or texts[i]
            with_terms += bool(new_uses)
            uses += len(new_uses)
            used.update(id_ for _, id_ in new_uses)
            offsets = located[i][1]
            inside += sum(_cuts_a_word(texts[i], *offsets[position]) for position, _ in new_uses)
    return CorpusComparison(
        Check(
            documents=documents,
            changed=changed,
            decoded_otherwise=decoding_changes,
            with_terms=with_terms,
            uses=uses,
            used=len(used),
            inside_words=inside,
            tokens_before=before,
            tokens_after=after,
        ),
        causes,
        unexplained,
        decoding_change,
    )


def _ids_near_change(
    old: Sequence[int], new: Sequence[int], pieces: Mapping[int, Sequence[int]]
) -> set[int] | None:
    """Return the new ids in and next to the range that cannot be mapped back to the old ids.

    Returns:
        The new ids, possibly none, or None if everything maps back.
    """
    sources: list[tuple[int, int]] = [
        (piece, position) for position, id_ in enumerate(new) for piece in pieces.get(id_, (id_,))
    ]
    restored = [piece for piece, _ in sources]
    if restored == old:
        return None
    shorter = min(len(old), len(restored))
    start = next((i for i in range(shorter) if old[i] != restored[i]), shorter)
    rest = shorter - start
    end = next((i for i in range(rest) if old[-1 - i] != restored[-1 - i]), rest)
    first = sources[start - 1][1] if start else 0
    last = sources[min(len(sources) - end, len(sources) - 1)][1]
    return {id_ for id_ in new[first : last + 1] if id_ in pieces}


def _decodes_worse(text: str, before: str, after: str) -> bool:
    """Return whether decoding loses something that it kept before.

    Whitespace is ignored if it was not preserved before, as with WordPiece.
    """
    if before == text:
        return after != text
    return "".join(before.split()) != "".join(after.split())


def _cuts_a_word(text: str, start: int, end: int) -> bool:
    """Return whether a range of a text begins or ends inside a word."""
    begins = start > 0 and text[start].isalnum() and text[start - 1].isalnum()
    return begins or (end < len(text) and text[end - 1].isalnum() and text[end].isalnum())
