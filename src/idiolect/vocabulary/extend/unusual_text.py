"""Texts with characters and sequences that tokenizers treat differently, to compare tokenizers."""

from __future__ import annotations

import random
import unicodedata
from functools import cache

__all__ = ["unusual_texts"]

_PARTS = (
    " ", " ", "  ", "\t", "\n", "\r\n", "\n\n", "\r", "\x0b", "\x0c", "\0", "\x1c", "\x85",
    "\u00a0", "\u200b", "\u2028", "\u2029", "\u3000", "\ufeff", "a", "the", "The", "HbA1c",
    "XR-2000B", "x's", "'s", "'S", "'\u017f", "'t", "'re", "'ll", "''", "'", '"', "\u2019s", "1",
    "12", "123", "1234567", "3.14", "1,000", "10%", "-5", "\u00b2", "\u00bd", "\u2167",
    "\u0663\u0664", "\u0967", "\u3007", "\u4e8c", ".", "...", ",", "!?", "(", ")", "[x]", "{",
    "#", "##", "/", "\\", "_", "__", "--", "\u2013", "@", "&", "$", "\u20ac", "+", "=", "<", ">",
    "|", "~", "^", "`", "\u00a9", "\u2122", "\u3002", "\uff01", "\u2e39", "\u00e9", "e\u0301",
    "\u0301", "\u00f2", "na\u00efve", "\u00df", "\u0130", "\ufb01", "\u00b5", "\u03a9", "\u0416",
    "\u05d0\u05d1", "\u0639\u0631", "\u0939\u093f", "\u0e44\u0e17", "\ud55c\uae00",
    "\u6f22\u5b57", "\u304b\u306a", "\u30ab\u30ca", "\U0001d54f", "\U0001f600",
    "\U0001f468\u200d\U0001f469", "\u270c\ufe0f", "\ue000", "\u2581", "\u0120", "<s>", "<0x41>",
    "[PAD]", "<|end|>",
)  # fmt: skip


@cache
def unusual_texts() -> list[str]:
    """Return texts of unusual parts in random order, and of each kind of character in context.

    The random seed is fixed, so the texts are always the same.
    """
    rng = random.Random(0)
    texts = ["".join(rng.choices(_PARTS, k=rng.randrange(1, 24))) for _ in range(4000)]
    kinds: dict[str, list[str]] = {}
    for code in (*range(0xD800), *range(0xE000, 0x20000)):
        kinds.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    for members in kinds.values():
        for c in members if len(members) < 800 else rng.sample(members, 400):
            texts.append(f"{c}a{c}1{c}, {c}{c} {c}b  {c}\n{c}.{c}")
    return texts
