r"""`WordCache`: encode texts word by word, each distinct word once.

A word here includes the spaces before it and ends before the next space. With the usual
pre-tokenizers no token crosses a word boundary, and neither side of it depends on the other. The
ids of a text are then those of its words, and looking up a word that was encoded before costs much
less than encoding it.
If this cannot be guaranteed, because a component of the tokenizer is unknown or an added token or a
term contains a space, `encode` encodes the whole text. The ids are the same in both cases.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import TYPE_CHECKING, Any

from idiolect.text.tokenizers.tiktoken import CL100K, GPT2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["WordCache"]

_LIMIT = 1 << 21
"""Maximum size of the cache, in characters plus 16 per word: about 60 MB."""
_SEVERAL_WORDS = re.compile(r"\S\s")
_WORDS = r"\s*\S+(?:[^\S{0}]\s*\S+)*(?:[^\S{0}]\s*\Z)?|\s+"
r"""A word ends only before one of the characters `{0}`. Python's `\s` matches all Unicode spaces
and four more control characters, so `\S` matches only what every engine treats as a nonspace."""
_ANY_SPACE, _BLANK, _SPACE = r" \t\n\r", r" \t", r" "
_SPLITS = {
    GPT2: _ANY_SPACE,
    GPT2.replace("'s|'t|'re|'ve|'m|'ll|'d|", ""): _ANY_SPACE,
    r"\p{N}": _ANY_SPACE,
    r"\p{N}{1,3}": _ANY_SPACE,
    # Punctuation includes the line breaks after it.
    CL100K: _BLANK,
    CL100K.replace(r"\p{N}{1,3}", r"\p{N}"): _BLANK,
}
"""Patterns of pre-tokens, and the spaces that never follow a nonspace within a match."""


class WordCache:
    """Encodes texts with the same ids as `Tokenizer.encode_batch` without special tokens.

    It is thread-safe.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        spaces = _separators(json.loads(tokenizer.text_engine.to_str()))
        self.is_used: bool = spaces is not None
        """Whether texts are encoded word by word."""
        self._split: Callable[[str], list[str]] = re.compile(_WORDS.format(spaces)).findall
        self._known: dict[str, list[int]] = {}
        self._size = 0

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the ids of each text."""
        if not self.is_used:
            return self._tokenizer.encode_batch(texts, add_special_tokens=False)
        known = self._known
        words = list(map(self._split, texts))
        fresh = list(dict.fromkeys(chain.from_iterable(words)).keys() - known.keys())
        if fresh:
            ids = self._tokenizer.encode_batch(fresh, add_special_tokens=False)
            known.update(zip(fresh, ids, strict=True))
            self._size += sum(map(len, fresh)) + 16 * len(fresh)
            if self._size > _LIMIT:
                # Replace the dictionary, not clear it: other threads may still read the old one.
                self._known, self._size = {}, 0
        look_up = known.__getitem__
        return [list(chain.from_iterable(map(look_up, own))) for own in words]


def _separators(pipeline: dict[str, Any]) -> str | None:
    """Return the spaces before which text may be cut after a nonspace, if any."""
    for token in pipeline["added_tokens"]:
        if token["rstrip"] or _SEVERAL_WORDS.search(token["content"]):
            return None
    parts = _parts(pipeline["pre_tokenizer"], "pretokenizers")
    found = [_spaces_of(part) for part in parts]
    if not found or None in found or not _is_local(pipeline["normalizer"], parts):
        return None
    return min((spaces for spaces in found if spaces is not None), key=len)


def _parts(component: dict[str, Any] | None, key: str) -> Sequence[dict[str, Any]]:
    if component is None:
        return ()
    return component[key] if component["type"] == "Sequence" else (component,)


def _spaces_of(part: dict[str, Any]) -> str | None:
    """Return the spaces that begin a pre-token of their own after a nonspace."""
    kind = part["type"]
    if kind == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
        return _SPLITS.get(part["pattern"].get("Regex"))
    if kind == "ByteLevel":
        # The engine inserts a space before text that begins with another character (a line break).
        return _SPACE if part["add_prefix_space"] else _ANY_SPACE
    known = ("BertPreTokenizer", "Whitespace", "Digits", "Punctuation")
    return _ANY_SPACE if kind in known else None


def _is_local(normalizer: dict[str, Any] | None, parts: Sequence[dict[str, Any]]) -> bool:
    """Return whether a normalizer treats the text on each side of a space independently.

    BERT's removes characters, so separate spaces may become adjacent. This matters if spaces are
    kept.
    """
    dropped = any(part["type"] in ("BertPreTokenizer", "Whitespace") for part in parts)
    allowed = {"NFC", "Lowercase"} | ({"BertNormalizer"} if dropped else set())
    return all(part["type"] in allowed for part in _parts(normalizer, "normalizers"))
