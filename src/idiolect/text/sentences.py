r"""Find the ends of sentences by punctuation and line breaks, in cased and lower-case text.

>>> text = "Dr. Who saw it. It was 3.14 m long.\nA table"
>>> [text[i:j] for i, j in zip([0, *sentence_ends(text)], [*sentence_ends(text), None])]
['Dr. Who saw it.', ' It was 3.14 m long.', '\nA table']
"""

from __future__ import annotations

import re

__all__ = ["sentence_ends"]

_END = re.compile(r"""[.!?…]+["'”’)\]»]*(?=\s)|[。！？]+[」』”’）]*|[^\s](?=\s*\n\s*\S)""")
_SOMETHING = re.compile(r"\S")
_LAST_WORD = re.compile(r"([^\W\d_]+)\.$")
_ABBREVIATIONS = frozenset(
    {
        *("al", "approx", "ca", "cf", "dr", "ed", "eds", "eq", "eqs", "etc", "fig", "figs", "inc"),
        *("jr", "ltd", "mr", "mrs", "ms", "no", "nos", "pp", "prof", "ref", "refs", "sr", "st"),
        *("vol", "vs", "bzw", "vgl"),
    }
)


def sentence_ends(text: str) -> list[int]:
    """Return the positions of the boundaries between sentences, each the end of a sentence.

    A period after a single letter or a common abbreviation does not end a sentence. In a text with
    capitals, neither does punctuation before a lower-case letter. The end of the text is excluded.
    """
    has_capitals = any(letter.isupper() for letter in text)
    ends = []
    for match in _END.finditer(text):
        following = _SOMETHING.search(text, match.end())
        if following is None:
            break
        at_line_end = "\n" in text[match.end() : following.start()]
        if at_line_end or not _is_inside(match, following.group(), has_capitals):
            ends.append(match.end())
    return ends


def _is_inside(match: re.Match[str], following: str, has_capitals: bool) -> bool:
    """Return whether punctuation before `following` is inside a sentence."""
    if has_capitals and following.islower():
        return True
    if match.group()[0] != ".":
        return False
    word = _LAST_WORD.search(match.string, max(0, match.start() - 16), match.start() + 1)
    return word is not None and (len(word[1]) == 1 or word[1].lower() in _ABBREVIATIONS)
