r"""Regular expressions of pre-tokenizers as trees, with the exact characters each part matches.

A tree can be *narrowed* to a subset of the characters. This models a pattern that is applied after
another pre-tokenizer has split the text: its matches end at the split, as at the end of the text.

>>> render(parse(r" ?\p{L}+|\s+(?!\S)"))
' ?\\p{L}+|\\s+(?!\\S)'
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, pre_tokenizers

__all__ = [
    "Atom",
    "Characters",
    "Choice",
    "Edge",
    "Group",
    "Look",
    "Node",
    "Repeat",
    "Sequence",
    "UnsupportedPatternError",
    "character_class",
    "characters_of",
    "consumed",
    "first_characters",
    "isolated_characters",
    "matched_alone",
    "narrow",
    "parse",
    "render",
]

Characters = npt.NDArray[np.bool_]
"""Mask of the `_CODE_POINTS` that belong to a set."""

_CODE_POINTS = [
    *range(0xD800),
    *range(0xE000, 0x32400),
    0x4FFFD,
    *range(0xE0000, 0xE0200),
    0xF0000,
    0x10FFFD,
]
"""All assigned characters, and one of each large unassigned or private-use range."""
_TEXT = "".join(map(chr, _CODE_POINTS))
_ESCAPED_SET = re.compile(
    r"\\(?:[pP]\{\^?\w+\}|x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{4})"
)
_QUANTIFIER = re.compile(r"(?:[*+?]|\{(\d*),?(\d*)\})[+?]?")
_OPENINGS = ("(?=", "(?!", "(?<=", "(?<!", "(?:", "(?>", "(?i:", "(")


class UnsupportedPatternError(ValueError):
    """A regular expression, or a combination of them, that this module cannot rewrite."""


@dataclass(frozen=True, eq=False)
class Atom:
    """One character of a set."""

    text: str
    """Its regular expression."""
    characters: Characters
    elsewhere: bool = False
    """Whether it matches only where no earlier alternative matches."""


@dataclass(frozen=True, eq=False)
class Repeat:
    """A repeated item."""

    item: Node
    quantifier: str

    @property
    def optional(self) -> bool:
        """Whether it can match the empty string."""
        return self.quantifier[0] in "*?" or self.quantifier.startswith(("{0", "{,"))

    @property
    def once_is_enough(self) -> bool:
        """Whether one occurrence matches."""
        return self.quantifier[0] != "{" or self.quantifier.startswith(("{0,", "{1", "{,"))

    @property
    def takes_all(self) -> bool:
        """Whether it matches every adjacent occurrence."""
        return self.quantifier in ("+", "*", "++", "*+")


@dataclass(frozen=True, eq=False)
class Group:
    """Alternatives in parentheses."""

    opening: str
    body: Choice


@dataclass(frozen=True, eq=False)
class Look:
    """A lookaround, which consumes no characters."""

    opening: str
    body: Choice


@dataclass(frozen=True)
class Edge:
    r"""An edge of a line or of the text: `$`, `^`, `\z`, `\A`."""

    text: str


Node = Atom | Repeat | Group | Look | Edge
Sequence = tuple[Node, ...]
Choice = tuple[Sequence, ...]


@cache
def characters_of(pattern: str) -> Characters:
    """Return the characters that a single-character pattern matches in the regex engine."""
    found = np.ones(len(_CODE_POINTS), bool)
    between = pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "removed")
    for _, (start, end) in between.pre_tokenize_str(_TEXT):
        found[start:end] = False
    return found


def isolated_characters(runs: pre_tokenizers.PreTokenizer) -> Characters:
    """Return the characters whose runs a pre-tokenizer isolates; U+0000 is excluded."""
    found = np.zeros(len(_CODE_POINTS), bool)
    for _, (start, end) in runs.pre_tokenize_str(_TEXT)[1::2]:
        found[start:end] = True
    return found


def character_class(characters: Characters) -> str:
    r"""Return a character class of exactly these characters.

    >>> character_class(characters_of("[ab]|[d-z]"))
    '[abd-z]'
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], characters, [False]])))
    runs = ((_CODE_POINTS[a], _CODE_POINTS[b - 1]) for a, b in edges.reshape(-1, 2))
    return f"[{''.join(_run(first, last) for first, last in runs)}]"


def _run(first: int, last: int) -> str:
    low, high = (
        re.escape(chr(c)) if chr(c).isprintable() else f"\\x{{{c:X}}}" for c in (first, last)
    )
    if first == last:
        return low
    return low + high if last == first + 1 else f"{low}-{high}"


def parse(pattern: str) -> Choice:
    r"""Parse a regular expression in the engine's syntax (Oniguruma's for Ruby).

    Raises:
        UnsupportedPatternError: it contains a construct that cannot be narrowed, such as `\b`.
    """
    choice, rest = _parse_choice(pattern, 0, ignore_case=False)
    if rest != len(pattern):
        raise UnsupportedPatternError(pattern)
    return choice


def _parse_choice(pattern: str, at: int, *, ignore_case: bool) -> tuple[Choice, int]:
    sequences: list[Sequence] = []
    items: list[Node] = []
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            sequences.append(tuple(items))
            items = []
            at += 1
            continue
        item, at = _parse_item(pattern, at, ignore_case=ignore_case)
        if found := _QUANTIFIER.match(pattern, at):
            if isinstance(item, Look | Edge):
                raise UnsupportedPatternError(pattern)
            item, at = Repeat(item, found[0]), found.end()
        items.append(item)
    return (*sequences, tuple(items)), at


def _parse_item(pattern: str, at: int, *, ignore_case: bool) -> tuple[Node, int]:
    if pattern[at] == "(":
        opening = next(o for o in _OPENINGS if pattern.startswith(o, at))
        if opening == "(" and pattern.startswith("(?", at):
            raise UnsupportedPatternError(pattern)
        folded = ignore_case or opening == "(?i:"
        body, end = _parse_choice(pattern, at + len(opening), ignore_case=folded)
        if end >= len(pattern):
            raise UnsupportedPatternError(pattern)
        looks = opening in _OPENINGS[:4]
        return (Look if looks else Group)(opening, body), end + 1
    if pattern[at] in "^$" or pattern.startswith(("\\z", "\\A"), at):
        text = pattern[at] if pattern[at] in "^$" else pattern[at : at + 2]
        return Edge(text), at + len(text)
    end = _atom_end(pattern, at)
    text = pattern[at:end]
    # `\S` as a class can be narrowed by adding to it.
    text = {"\\S": "[^\\s]"}.get(text, text)
    return Atom(text, characters_of(f"(?i:{text})" if ignore_case else text)), end


def _atom_end(pattern: str, at: int) -> int:
    if pattern[at] in "*+?{":
        raise UnsupportedPatternError(pattern)
    if pattern[at] == "\\":
        if found := _ESCAPED_SET.match(pattern, at):
            return found.end()
        following = pattern[at + 1 : at + 2]
        if following in "dDsSwWhHnrtfvae" or not following.isalnum():
            return at + 2
        raise UnsupportedPatternError(pattern)
    if pattern[at] != "[":
        return at + 1
    depth, i = 1, at + 1
    i += pattern.startswith("^", i)
    i += pattern.startswith("]", i)
    while i < len(pattern) and depth:
        if pattern[i] == "\\":
            i += 1
        elif pattern.startswith("[:", i) and ":]" in pattern[i + 2 :]:
            i = pattern.index(":]", i) + 1
        else:
            depth += {"[": 1, "]": -1}.get(pattern[i], 0)
        i += 1
    if depth:
        raise UnsupportedPatternError(pattern)
    return i


def render(choice: Choice) -> str:
    """Write a tree as a regular expression."""
    return "|".join("".join(map(_render_item, sequence)) for sequence in choice)


def _render_item(item: Node) -> str:
    if isinstance(item, Repeat):
        return _render_item(item.item) + item.quantifier
    if isinstance(item, Atom | Edge):
        return item.text
    return f"{item.opening}{render(item.body)})"


def _none() -> Characters:
    return np.zeros(len(_CODE_POINTS), bool)


def consumed(sequence: Sequence) -> Characters:
    """Return all characters that a sequence can consume."""
    found = _none()
    for item in sequence:
        inner = item.item if isinstance(item, Repeat) else item
        if isinstance(inner, Atom):
            found = found | inner.characters
        elif isinstance(inner, Group):
            found = reduce(np.logical_or, map(consumed, inner.body), found)
    return found


def first_characters(choice: Choice) -> Characters:
    """Return the characters that a match can begin with."""
    found = _none()
    for sequence in choice:
        for item in sequence:
            inner = item.item if isinstance(item, Repeat) else item
            if isinstance(inner, Atom):
                found = found | inner.characters
            elif isinstance(inner, Group):
                found = found | first_characters(inner.body)
            else:
                continue
            if not (isinstance(item, Repeat) and item.optional):
                break
        else:
            return np.ones_like(found)  # it can match the empty string
    return found


def matched_alone(choice: Choice) -> list[Atom]:
    """Return the atoms that match a character regardless of the text that follows it."""
    found = []
    for sequence in choice:
        required = [i for i in sequence if not (isinstance(i, Repeat) and i.optional)]
        if len(required) != 1:
            continue
        item = required[0]
        if isinstance(item, Repeat) and item.once_is_enough:
            item = item.item
        if isinstance(item, Atom):
            found.append(item)
        elif isinstance(item, Group) and item.opening != "(?i:":
            found += matched_alone(item.body)
    return found


def narrow(
    choice: Choice, shrink: Callable[[Atom], Atom | None], edge: Callable[[str], str]
) -> Choice:
    """Return the part of a pattern that can still match if only some characters are visible.

    Args:
        choice: the pattern.
        shrink: narrows an atom to the visible characters; returns None if there are none.
        edge: given the pattern of an edge of the whole text, returns that of the visible text.

    Returns:
        The alternatives that can still match; there may be none.
    """
    sequences = (_narrow_sequence(sequence, shrink, edge) for sequence in choice)
    return tuple(sequence for sequence in sequences if sequence is not None)


def _narrow_sequence(
    sequence: Sequence, shrink: Callable[[Atom], Atom | None], edge: Callable[[str], str]
) -> Sequence | None:
    kept: list[Node] = []
    for item in sequence:
        if isinstance(item, Edge):
            kept.append(Edge(edge(item.text)))
        elif isinstance(item, Look):
            body = narrow(item.body, shrink, edge)
            if body:
                kept.append(Look(item.opening, body))
            elif "!" not in item.opening:
                return None
        else:
            inner = item.item if isinstance(item, Repeat) else item
            left: Node | None = None
            if isinstance(inner, Atom):
                left = shrink(inner)
            elif isinstance(inner, Group) and (body := narrow(inner.body, shrink, edge)):
                left = Group(inner.opening, body)
            if left is not None:
                kept.append(Repeat(left, item.quantifier) if isinstance(item, Repeat) else left)
            elif not (isinstance(item, Repeat) and item.optional):
                return None
    return tuple(kept)
