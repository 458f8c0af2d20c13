"""Terms of a text: how it is indexed for full-text search, and where a query matches it.

FTS5 splits text at spaces and punctuation, and stems English. Text is preprocessed in two ways:

- Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese do not separate words by spaces, or form
  compounds. Chinese, Japanese and Korean are indexed as overlapping bigrams of characters, as in
  Lucene's CJKAnalyzer; the other four, which have alphabets, as overlapping trigrams. Marks such as
  Thai vowels and tones belong to the character before them. This applies to indexes of all
  languages, and does not change text in other scripts.
- If the language of the index is not English, words are stemmed by Snowball (Porter 2001).

>>> index_text("赤いランプ (red lamps)", "en")
' 赤い いラ ラン ンプ プ  (red lamps)'
>>> index_text("rote Lampen", "de")
'rot lamp'
>>> query_terms("ランプ", "en")
['"ラン"', '"ンプ"']

A term starts at every character; the last ones are shorter. So a query that is shorter than a term,
such as a single character, is the prefix of a term wherever it occurs.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "LANGUAGES",
    "Matches",
    "check_language",
    "excerpt",
    "find_matches",
    "index_text",
    "query_terms",
    "text_terms",
    "tokenizer",
]

_SNOWBALL = {
    "ca": "catalan",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "es": "spanish",
    "eu": "basque",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "tr": "turkish",
}
_PORTER = ("en", "ja", "km", "ko", "lo", "my", "th", "zh")
"""These languages have no stemmer; their texts may contain English words."""
LANGUAGES = ("none", *sorted([*_PORTER, *_SNOWBALL]))
"""Languages of an index, by ISO 639-1 code; `none` for no stemming."""

_MARKS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"  # Thai
    "\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"  # Lao
    "\u102b-\u103e\u1056-\u1059\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d"
    "\u17b4-\u17d3\u17dd"  # Khmer
)
"""Combining vowels, tones and other signs, which FTS5 does not treat as letters."""
_IDEOGRAPHS = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
    "\u3105-\u312f\u31a0-\u31bf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
    "\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7fb\uffa1-\uffdc"
)
"""Chinese, Japanese and Korean characters, indexed as bigrams."""
_LETTERS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf"
    "\u1000-\u103f\u1050-\u109d\u1780-\u17d3\u17d7\u17dc\u17dd"
)
"""Thai, Lao, Burmese and Khmer characters, indexed as trigrams."""
_UNSPACED = _IDEOGRAPHS + _LETTERS
_JOINED = "\u3099\u309a\uff9e\uff9f\u1160-\u11ff\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""Other code points that belong to the character before them: voicing marks, vowels and finals of
decomposed Korean syllables, and variation selectors."""
_RUN = f"[{_IDEOGRAPHS}][{_IDEOGRAPHS}{_JOINED}]*|[{_LETTERS}]+"
_WORD = f"[^\\W_{_UNSPACED}](?:[^\\W_{_UNSPACED}]|[\u0300-\u036f])*"
_LETTER = re.compile(f"[{_LETTERS}]")
_CHARACTER = re.compile(f".[{_MARKS}{_JOINED}]*")
_VARIANT = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")

_WIDTH = 64
"""Size of an excerpt: 64 characters of a script without spaces, or 32 words."""
_LEAD = 8


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern when it is first needed: it takes longer than most searches."""
    return re.compile(pattern)


def check_language(language: str) -> str:
    """Return the code of a language.

    Raises:
        InputError: It is not known.
    """
    if language not in LANGUAGES:
        raise InputError(
            f"unknown language {language!r} of an index", hint=f"known: {', '.join(LANGUAGES)}"
        )
    return language


def tokenizer(language: str) -> str:
    """Return FTS5's tokenizer for a language, as in `tokenize='…'`."""
    ranges = re.findall("(.)-(.)|(.)", _MARKS)
    marks = "".join(
        single or "".join(map(chr, range(ord(first), ord(last) + 1)))
        for first, last, single in ranges
    )
    stemming = "porter " if language in _PORTER else ""
    return f"{stemming}unicode61 remove_diacritics 2 tokenchars ''{marks}''"


def index_text(text: str, language: str) -> str:
    """Return the form of a text that is indexed; the text itself if it needs no preprocessing."""
    if language in _SNOWBALL:
        text = unicodedata.normalize("NFC", text)
        text = _compiled(_WORD).sub(lambda word: _stem(word[0], language), text)
    if text.isascii():
        return text
    return _compiled(_RUN).sub(lambda run: f" {' '.join(_grams(run[0], tails=True))} ", text)


def query_terms(text: str, language: str) -> list[str]:
    """Return the FTS5 phrases of a query without double quotes, each once."""
    terms: dict[str, None] = {}
    for word in text.split():
        end = 0
        for run in () if word.isascii() else _compiled(_RUN).finditer(word):
            terms |= dict.fromkeys(_phrases(word[end : run.start()], language))
            star = " *" if len(_characters(run[0])) < _size(run[0]) else ""
            terms |= dict.fromkeys(f'"{gram}"{star}' for gram in _grams(run[0]))
            end = run.end()
        terms |= dict.fromkeys(_phrases(word[end:], language))
    return list(terms)


def text_terms(text: str, language: str) -> list[str]:
    """Return the terms of a text in order, without case and accents, stemmed.

    >>> text_terms("Rote Lampen, ランプ", "de")
    ['rot', 'lamp', 'ラン', 'ンプ']
    """
    return [term for *_, terms in _tokens(text, language, single=False) for term in terms]


@dataclass(frozen=True, slots=True)
class Matches:
    """The positions of a query's terms in a text, in characters."""

    start: int
    end: int
    """The part of the text with the most terms."""
    places: list[tuple[int, int]]
    """All matched spans, in order."""


def find_matches(query: str, text: str, language: str) -> Matches:
    """Find the terms of a query in a text, and the part of the text with the most terms."""
    wanted = set(text_terms(query, language))
    spans: list[tuple[int, int, str]] = []
    for start, end, terms in _tokens(text, language, single=True):
        matched = next((term for term in terms if term in wanted), "")
        spans.append((start, end, matched))
    if not spans:
        return Matches(0, len(text), [])
    first, last = _window(text, spans)
    start = 0 if first == 0 else spans[first][0]
    end = len(text) if last == len(spans) - 1 else spans[last][1]
    return Matches(start, end, list(_joined(spans)))


def excerpt(query: str, text: str, before: str, after: str, language: str) -> str:
    """Return the part of a text with the most terms of a query, and mark these.

    This is for texts that are preprocessed for indexing; FTS5 creates the excerpts of others.
    """
    found = find_matches(query, text, language)
    start, end = found.start, found.end
    parts, position = ["…" if start else ""], start
    for place in found.places:
        left, right = max(place[0], start), min(place[1], end)
        if left < right:
            parts += [text[position:left], before, text[left:right], after]
            position = right
    return "".join([*parts, text[position:end], "…" if end < len(text) else ""])


def _characters(run: str) -> list[str]:
    """Split a run into characters, each in Unicode normal form."""
    return [
        unicodedata.normalize("NFKC", _VARIANT.sub("", part)) for part in _CHARACTER.findall(run)
    ]


def _size(run: str) -> int:
    """Return the number of characters per term: two, or three for alphabets."""
    return 3 if _LETTER.match(run) else 2


def _grams(run: str, *, tails: bool = False) -> list[str]:
    """Return the terms of a run, or the whole run if it is shorter than one.

    Args:
        run: Text of a script without spaces.
        tails: Also return the shorter terms at the end, so that a term starts at every character.
    """
    characters, size = _characters(run), _size(run)
    last = len(characters) if tails else max(1, len(characters) - size + 1)
    return ["".join(characters[n : n + size]) for n in range(last)]


def _phrases(word: str, language: str) -> Iterator[str]:
    if word:
        yield f'"{index_text(word, language)}"'


def _stem(word: str, language: str) -> str:
    return _stemmer(_SNOWBALL[language])(word.lower())


@functools.cache
def _stemmer(name: str) -> Callable[[str], str]:
    import Stemmer  # not needed in most searches

    stem: Callable[[str], str] = Stemmer.Stemmer(name).stemWord
    return stem


def _tokens(text: str, language: str, *, single: bool) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the span of each token, and the terms that match it.

    Args:
        text: A text or a query.
        language: Language of the index.
        single: Whether each character of a script without spaces is a token, with all terms and
            shorter queries that it is a part of. Otherwise a run of such characters is one token.
    """
    for token in _compiled(f"({_RUN})|{_WORD}").finditer(text):
        if token[1] is None:
            yield token.start(), token.end(), [_folded(token[0], language)]
            continue
        grams, size = _grams(token[0]), _size(token[0])
        if not single:
            yield token.start(), token.end(), grams
            continue
        characters = _characters(token[0])
        for n, one in enumerate(_CHARACTER.finditer(token[0])):
            near = grams[max(0, n - size + 1) : n + 1]
            short = ["".join(characters[m : n + 1]) for m in range(max(0, n - size + 2), n + 1)]
            short += ["".join(characters[n : m + 1]) for m in range(n + 1, n + size - 1)]
            yield token.start() + one.start(), token.start() + one.end(), near + short


@functools.lru_cache(1 << 16)
def _folded(word: str, language: str) -> str:
    """Return a word as FTS5 indexes it: without case and accents, stemmed."""
    if language in _SNOWBALL:
        word = _stem(unicodedata.normalize("NFC", word), language)
    parts = unicodedata.normalize("NFD", word.lower())
    plain = "".join(part for part in parts if not unicodedata.combining(part))
    return _stemmer("porter")(plain) if language in _PORTER else plain


def _window(text: str, spans: list[tuple[int, int, str]]) -> tuple[int, int]:
    """Return the first and last token of the earliest window with the most distinct terms."""
    sizes = [1 if _compiled(_RUN).match(text, start) else 2 for start, *_ in spans]
    counts = Counter[str]()
    best = found = first = size = 0
    for last, (_, _, term) in enumerate(spans):
        size += sizes[last]
        counts[term] += 1
        while size > _WIDTH - _LEAD:
            size -= sizes[first]
            counts[spans[first][2]] -= 1
            first += 1
        distinct = sum(1 for name, count in counts.items() if name and count)
        if distinct > found:
            best, found = first, distinct
    start = next((n for n in range(best, len(spans)) if spans[n][2]), 0)
    first, _ = _extended(sizes, start, -1, _LEAD)
    last, left = _extended(sizes, first - 1, 1, _WIDTH)
    if last == len(spans) - 1:
        first, _ = _extended(sizes, first, -1, left)
    return first, last


def _extended(sizes: list[int], place: int, step: int, room: int) -> tuple[int, int]:
    """Move a position while the next token fits; return it, and the remaining room."""
    while 0 <= place + step < len(sizes) and sizes[place + step] <= room:
        place += step
        room -= sizes[place]
    return place, room


def _joined(spans: list[tuple[int, int, str]]) -> Iterator[tuple[int, int]]:
    """Yield the matched spans; adjacent ones are joined."""
    left = right = -1
    for start, end, matched in spans:
        if not matched:
            continue
        if start != right:
            if right >= 0:
                yield left, right
            left = start
        right = end
    if right >= 0:
        yield left, right
