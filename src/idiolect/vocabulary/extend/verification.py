"""What an extension must hold before it is handed out, checked on real text.

- Replacing new ids by the base pieces they stand for gives back the base ids: so text without new
  terms has the ids it had, and nothing changes around the terms.
- Decoding gives the text it gave before.
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

__all__ = ["Verdict", "check", "respelt", "unreached"]

_PLACES = {True: ("a{} b", "the{} and", "){} (", "a{}.", "a{},"), False: ("{} b", "({})", "\n{}\n")}
"""Where to look for a form with a space before it, and for one without. There are several, since a
longer term may begin with the word before."""


@dataclass
class Verdict:
    """The result of a check, and who is to blame for what went wrong."""

    check: Check
    culprits: set[int] = field(default_factory=set)
    """New ids in documents that changed."""
    blameless: str = ""
    """Beginning of a document that changed though no new id is in it; empty if there is none."""
    misread: str = ""
    """Beginning of a document that is no longer decoded as before; empty if there is none."""


def unreached(larger: Tokenizer, added: Sequence[Added]) -> tuple[set[int], int]:
    """Find new ids that text cannot produce.

    Returns:
        The ids that are not, and how many others are one token in only some of the places tried.
    """
    failed = set()
    partly = 0
    for spaced, contexts in _PLACES.items():
        tokens = [t for t in added if t.kind != "part" and t.text.startswith(" ") is spaced]
        reached = [
            [token.id in ids for token, ids in zip(tokens, encoded, strict=True)]
            for context in contexts
            for encoded in [
                larger.encode_batch([context.format(t.text) for t in tokens], special_tokens=False)
            ]
        ]
        for i, token in enumerate(tokens):
            found = [places[i] for places in reached]
            if not any(found):
                failed.add(token.id)
            elif not all(found):
                partly += 1
    return failed, partly


def respelt(
    base: Tokenizer, larger: Tokenizer, pieces: Mapping[int, Sequence[int]]
) -> dict[int, str]:
    """Find new ids that decode to other text than their pieces, white space aside.

    The WordPiece decoder, for one, tidies each token, and makes "don't" of a token `do not`.

    Returns:
        What each of them decodes to.
    """
    anchor = base.encode("a", special_tokens=False)
    known = {i: p for i, p in pieces.items() if base.unk_id not in p}
    was = base.decode_batch([[*anchor, *p] for p in known.values()], skip_special_tokens=False)
    now = larger.decode_batch([[*anchor, i] for i in known], skip_special_tokens=False)
    return {
        i: b[1:].strip()
        for i, a, b in zip(known, was, now, strict=True)
        if "".join(a.split()) != "".join(b.split())
    }


def check(
    base: Tokenizer, larger: Tokenizer, pieces: Mapping[int, Sequence[int]], corpus: Iterable[str]
) -> Verdict:
    """Compare two tokenizers on a corpus.

    Args:
        base: the smaller one.
        larger: the one with new ids.
        pieces: for each new id the ids of `base` it stands for.
        corpus: documents; all are read, few at a time.
    """
    size = len(base)
    documents = changed = otherwise = with_terms = uses = inside = before = after = 0
    used: set[int] = set()
    culprits: set[int] = set()
    blameless = misread = ""
    for texts in batches(corpus):
        old = base.encode_batch(texts, special_tokens=False)
        encodings = larger.engine.encode_batch(texts, add_special_tokens=False)
        new = [encoding.ids for encoding in encodings]
        different = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        was = base.decode_batch([old[i] for i in different], skip_special_tokens=False)
        now = larger.decode_batch([new[i] for i in different], skip_special_tokens=False)
        lost = [
            texts[i]
            for i, a, b in zip(different, was, now, strict=True)
            if base.unk_id not in old[i] and _lost(texts[i], a, b)
        ]
        misread = misread or (lost[0][:80] if lost else "")
        otherwise += len(lost)
        documents += len(texts)
        before += sum(map(len, old))
        after += sum(map(len, new))
        for i in different:
            fresh = [(place, id_) for place, id_ in enumerate(new[i]) if id_ >= size]
            near = _blame(old[i], new[i], pieces)
            if near is not None:
                changed += 1
                culprits |= near
                if not near:
                    blameless = blameless or texts[i][:80]
            with_terms += bool(fresh)
            uses += len(fresh)
            used.update(id_ for _, id_ in fresh)
            offsets = encodings[i].offsets
            inside += sum(_inside(texts[i], *offsets[place]) for place, _ in fresh)
    return Verdict(
        Check(
            documents=documents,
            changed=changed,
            decoded_otherwise=otherwise,
            with_terms=with_terms,
            uses=uses,
            used=len(used),
            inside_words=inside,
            tokens_before=before,
            tokens_after=after,
        ),
        culprits,
        blameless,
        misread,
    )


def _blame(
    old: Sequence[int], new: Sequence[int], pieces: Mapping[int, Sequence[int]]
) -> set[int] | None:
    """Find the new ids at and around what does not turn back into the old ids; None if all does."""
    sources: list[tuple[int, int]] = [
        (piece, place) for place, id_ in enumerate(new) for piece in pieces.get(id_, (id_,))
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


def _lost(text: str, was: str, now: str) -> bool:
    """Whether decoding lost something it kept before.

    WordPiece and others never gave back all white space; a new token may only restore some.
    """
    if was == text:
        return now != text
    return "".join(was.split()) != "".join(now.split())


def _inside(text: str, start: int, end: int) -> bool:
    """Whether a range of a text begins or ends in the middle of a word."""
    begins = start > 0 and text[start].isalnum() and text[start - 1].isalnum()
    return begins or (end < len(text) and text[end - 1].isalnum() and text[end].isalnum())
