r"""Protect terms from the pre-tokenizer, which would otherwise split them.

No vocabulary entry can match `XR-2000B` or `type 2 diabetes` if the pre-tokenizer splits them
first. Therefore the terms become the first alternative of its split pattern:

    (?: ␣term|term)(?!letter or digit)|original pattern

Other text is split as before: the regex engine tries an alternative only where the original
pattern would also start a pre-token, and the character after a term starts one too, because it is
neither a letter nor a digit.

SentencePiece splits only at the space `▁`, so a split next to a term is new. It changes nothing if
no vocabulary piece contains the two characters around it, because then nothing can merge across
it. The pattern excludes all other places.

Thousands of alternatives would be slow to try one by one at every word. They are written as a
trie, in which large branches are bisected by a lookahead at the next character. A word that starts
no term then costs only a few steps.

>>> trie_pattern(["XR-2000B", "XR-2000C", "XR"])
'XR(?:\\-2000[BC])?'
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import regex

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["GPT2_PATTERN", "EngineConfig", "can_protect_terms", "protect_terms", "trie_pattern"]

GPT2_PATTERN = r" ?\p{L}+| ?\p{N}+|'s|'t|'re|'ve|'m|'ll|'d| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The split pattern of the engine's `ByteLevel`. Letters and digits come first, because they are
the most frequent; this is equivalent, since no contraction starts with one."""

_WORD = r"\p{L}\p{M}\p{N}"
_IS_WORD = regex.compile(f"[{_WORD}]")
_MAX_BRANCHES = 4
"""Maximum number of alternatives before they are bisected by a lookahead."""

EngineConfig = dict[str, Any]
"""The JSON of a `tokenizers.Tokenizer`, as a dictionary."""


def trie_pattern(words: Iterable[str]) -> str:
    """Return a regular expression that matches the longest of the words."""
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return _trie_node(root)


def _trie_node(node: dict[str, Any]) -> str:
    # A loop follows nodes with one child, so that long words need no deep recursion.
    prefix = ""
    while len(node) == 1 and "" not in node:
        character, node = next(iter(node.items()))
        prefix += _escape(character)
    branches = [(_escape(c), _trie_node(node[c])) for c in sorted(node) if c]
    if not branches:
        return prefix
    if all(not rest for _, rest in branches):
        body = f"[{''.join(c for c, _ in branches)}]"
    else:
        body = f"(?:{_alternation(branches)})"
    return f"{prefix}{body}?" if "" in node else prefix + body


def _alternation(branches: Sequence[tuple[str, str]]) -> str:
    if len(branches) <= _MAX_BRANCHES:
        return "|".join(character + rest for character, rest in branches)
    middle = len(branches) // 2
    return "|".join(
        f"(?=[{''.join(character for character, _ in half)}])(?:{_alternation(half)})"
        for half in (branches[:middle], branches[middle:])
    )


def _escape(character: str) -> str:
    special = character in r"\.^$*+?()[]{}|-&~#"
    return f"\\{character}" if special else character


def can_protect_terms(config: EngineConfig) -> bool:
    """Return whether this type of pre-tokenizer can be changed to keep terms whole."""
    return _layout(config) is not None


def protect_terms(
    config: EngineConfig, terms: Collection[str], vocabulary: Collection[str]
) -> None:
    """Change a pre-tokenizer to keep terms whole, and the decoder to keep their spaces, in place.

    Args:
        config: an engine for which `can_protect_terms` is true, without protected terms so far.
        terms: in normalized form, including a leading space or `▁` if there is one.
        vocabulary: the pieces that could merge across the ends of a term, if the pre-tokenizer
            splits only at spaces.
    """
    if not terms:
        return
    layout = _layout(config)
    if layout == "byte-level":
        old = config["pre_tokenizer"]
        config["pre_tokenizer"] = _sequence(
            _split(f"{_alternatives(terms, ' ', '', '')}|{GPT2_PATTERN}"),
            old | {"use_regex": False},
        )
    elif layout == "split":
        split = config["pre_tokenizer"]["pretokenizers"][0]
        pattern = split["pattern"]["Regex"]
        split["pattern"]["Regex"] = f"{_alternatives(terms, ' ', '', '')}|{pattern}"
    else:
        start = _use_plain_metaspace(config)
        before, after = _forbidden_merges(vocabulary)
        first = _alternatives(terms, "▁", before, after)
        bare = [term for term in terms if not term.startswith("▁")]
        stop = f"(?!{_bare_terms(bare, before, after)})" if bare else ""
        rest = rf"(?:[{_WORD}]|[^▁{_WORD}]{stop})*[^▁{_WORD}]?" if stop else "[^▁]*"
        config["pre_tokenizer"]["pretokenizers"].append(_split(f"{first}|{start}{rest}"))
        decoder = config["decoder"]
        if decoder and decoder["type"] == "Metaspace" and decoder.get("prepend_scheme") != "never":
            # This decoder drops every `▁` of the first token, but a phrase contains several.
            config["decoder"] = {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ],
            }


def _layout(config: EngineConfig) -> str | None:
    """Return which supported type of pre-tokenizer this is, or None."""
    splitter = config["pre_tokenizer"]
    if splitter and splitter["type"] == "ByteLevel":
        plain = splitter.get("use_regex", True) and not splitter["add_prefix_space"]
        return "byte-level" if plain else None
    parts = splitter["pretokenizers"] if splitter and splitter["type"] == "Sequence" else [splitter]
    kinds = [part["type"] if part else "" for part in parts]
    if kinds == ["Split", "ByteLevel"]:
        first, second = parts
        plain = not second["add_prefix_space"] and not second.get("use_regex", True)
        matches = (first["behavior"], first["invert"]) in (("Isolated", False), ("Removed", True))
        return "split" if plain and matches and "Regex" in first["pattern"] else None
    if kinds in ([""], ["Split"]):
        spaced = "▁" in str(config["normalizer"])
        known = kinds == [""] or parts[0]["pattern"] in (
            {"Regex": "▁*[^▁]+|▁+"},
            {"String": "▁"},
        )
        return "metaspace" if spaced and known else None
    return "metaspace" if kinds in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]) else None


def _use_plain_metaspace(config: EngineConfig) -> str:
    """Make the pre-tokenizer a sequence that only inserts `▁`, without splitting.

    Returns:
        A pattern of the start of a pre-token: `▁?` if one starts at every `▁`, `▁*` if one starts
        only at the first of several.
    """
    splitter = config["pre_tokenizer"]
    parts = splitter["pretokenizers"] if splitter and splitter["type"] == "Sequence" else [splitter]
    config["pre_tokenizer"] = _sequence()
    if parts[0] is None:
        return "▁*"
    if parts[0]["type"] == "Split":
        return "▁?" if "String" in parts[0]["pattern"] else "▁*"
    if parts[0]["type"] == "WhitespaceSplit":
        # This drops whitespace and puts `▁` before every word, as if one space preceded each.
        steps = [config["normalizer"]] if config["normalizer"] else []
        steps += [
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        ]
        config["normalizer"] = {"type": "Sequence", "normalizers": steps}
    space = parts[-1]
    at_every = space.get("split", True)
    config["pre_tokenizer"] = _sequence(space | {"split": False})
    return "▁?" if at_every else "▁*"


def _alternatives(terms: Collection[str], space: str, before: str, after: str) -> str:
    """Return a pattern that matches the terms as whole words.

    Args:
        terms: with or without a leading `space`.
        space: a space or `▁`.
        before: lookaround before a term without a leading space.
        after: lookaround after any term.
    """
    spaced = [term[1:] for term in terms if term.startswith(space)]
    bare = [term for term in terms if not term.startswith(space)]
    options = [f"{space}{_whole_terms(spaced, after)}"] if spaced else []
    options += [_bare_terms(bare, before, after)] if bare else []
    return "|".join(options)


def _bare_terms(terms: Sequence[str], before: str, after: str) -> str:
    """Return a pattern of terms without a leading space."""
    words = [term for term in terms if _IS_WORD.match(term)]
    symbols = [term for term in terms if not _IS_WORD.match(term)]
    options = [rf"(?<![{_WORD}]){before}{_whole_terms(words, after)}"] if words else []
    options += [_whole_terms(symbols, after)] if symbols else []
    return "|".join(options)


def _whole_terms(terms: Sequence[str], after: str) -> str:
    """Return a pattern of terms and what may follow them.

    No letter or digit may follow a term that ends in one. A space or the end of the text must
    follow a term that ends in a symbol.
    """
    words = [term for term in terms if _IS_WORD.match(term[-1])]
    symbols = [term for term in terms if not _IS_WORD.match(term[-1])]
    options = [rf"(?:{trie_pattern(words)})(?![{_WORD}]){after}"] if words else []
    options += [rf"(?:{trie_pattern(symbols)})(?=[ ▁]|\z)"] if symbols else []
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"


def _forbidden_merges(vocabulary: Collection[str]) -> tuple[str, str]:
    """Find word and symbol characters that can merge; terms must not begin or end between them.

    Returns:
        Lookarounds for the position before a term and the position after it.
    """
    adjacent = [pair for piece in vocabulary for pair in pairwise(piece)]
    is_word = {c: bool(_IS_WORD.match(c)) for c in {c for pair in adjacent for c in pair}}
    pairs = {(a, b) for a, b in adjacent if "▁" not in (a, b) and is_word[a] != is_word[b]}
    sides = []
    for word_first in (False, True):
        lefts: dict[str, set[str]] = defaultdict(set)
        for a, b in pairs:
            if is_word[a] is word_first:
                lefts[b].add(_escape(a))
        rights: dict[str, list[str]] = defaultdict(list)
        for right, before in sorted(lefts.items()):
            rights["".join(sorted(before))].append(_escape(right))
        options = [f"(?<=[{left}])[{''.join(right)}]" for left, right in rights.items()]
        sides.append(f"(?!{'|'.join(options)})" if options else "")
    return sides[0], sides[1]


def _sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


def _split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
