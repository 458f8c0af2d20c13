r"""Protect terms from the pre-tokenizer, which would otherwise split them.

No vocabulary entry can match `XR-2000B` or `type 2 diabetes` if the pre-tokenizer splits them
first. Therefore the terms become the first alternative of its split pattern:

    (?: ␣term|term)(?!letter or digit)|original pattern

A sequence of pre-tokenizers is first rewritten as one pattern; see `single_split`.

Other text is split as before: the regex engine tries an alternative only where the original
pattern would also start a pre-token. Text that the pattern does not match gets an alternative of
its own at the end, because a term could begin inside it. After a term, no letter or digit may
follow, nor a character that merges with the end of the term, nor text that the original pattern
would then split elsewhere, such as `'s` after a combining mark.

SentencePiece splits only at the space `▁`, so a split next to a term is new. It changes nothing if
no vocabulary piece contains the two characters around it, because then nothing can merge across
it. The pattern excludes all other places.

With BPE and `ignore_merges`, every pre-token that is a vocabulary entry becomes that entry, even an
entry that merges never produce, such as SentencePiece's `<0x41>` for a byte. Text that spells one
is therefore split once more, between two of its pieces: `<` and `0x41>`.

Thousands of alternatives would be slow to try one by one at every word. They are written as a
trie, in which large branches are bisected by a lookahead at the next character. A word that starts
no term then costs only a few steps.

>>> trie_pattern(["XR-2000B", "XR-2000C", "XR"])
'XR(?:\\-2000[BC])?'
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import regex

from idiolect.text.tokenizers.byte_level import to_bytes, to_characters
from idiolect.vocabulary.extend.single_split import (
    GPT2_PATTERN,
    isolated_split,
    matches_everywhere,
    single_split,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Sequence

__all__ = ["EngineConfig", "can_protect_terms", "protect_terms", "trie_pattern"]

_WORD = r"\p{L}\p{M}\p{N}"
_IS_WORD = regex.compile(f"[{_WORD}]")
_SPLIT_ELSEWHERE = (
    r"(?!(?<=\p{M})(?:[^\s\p{L}\p{N}]+[\p{L}\p{N}]|[\r\n]+[^\S\r\n]+[\r\n])"
    r"|'(?i:s|t|re|ve|m|ll|d)\p{L})"
)
"""Lookahead that excludes text which a byte-level pattern splits elsewhere if a term ends before.

Most patterns take a combining mark as a symbol, and a run of symbols with the line breaks after it
as one pre-token. Cut off from the mark, the rest of the run may join the word or the lines after
it: `'s` becomes a contraction. Other patterns take a contraction as the end of the word before it,
and split `x'text` into `x't` and `ext`.
"""
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
    config: EngineConfig,
    terms: Collection[str],
    vocabulary: Collection[str] = (),
    cuts: Collection[tuple[str, str]] = (),
) -> None:
    """Change a pre-tokenizer to keep terms whole, and the decoder to keep their spaces, in place.

    Args:
        config: an engine for which `can_protect_terms` is true, without protected terms so far.
        terms: in normalized form, including a leading space or `▁` if there is one.
        vocabulary: the pieces that could merge across the ends of a term, if the pre-tokenizer
            splits only at spaces.
        cuts: pre-tokens that must be split, each as its two parts.
    """
    if not terms and not cuts:
        return
    layout = _layout(config)
    if layout != "metaspace":
        merging = _forbid_byte_merges(terms, config["model"]["merges"])
        ends = _Lookarounds(after=merging + _SPLIT_ELSEWHERE)
        options = [_alternatives(terms, " ", ends)] if terms else []
        options += [_cut_pattern(cuts, _end_of_run)] if cuts else []
        if layout == "sequence":
            config["pre_tokenizer"] = copy.deepcopy(_rewritten(json.dumps(config)))
        elif layout == "byte-level":
            byte_level = config["pre_tokenizer"]
            config["pre_tokenizer"] = _sequence(
                isolated_split(GPT2_PATTERN), byte_level | {"use_regex": False}
            )
        split = config["pre_tokenizer"]["pretokenizers"][0]
        pattern = split["pattern"]["Regex"]
        gaps = [] if split["invert"] or matches_everywhere(pattern) else [_gap_pattern(pattern)]
        split["pattern"]["Regex"] = "|".join([*options, pattern, *gaps])
        return
    start = _use_plain_metaspace(config)
    lookarounds = _forbid_merges(vocabulary)
    bare = [term for term in terms if not term.startswith("▁")]
    stop = f"(?!{_bare_terms(bare, lookarounds)})" if bare else ""
    rest = rf"(?:[{_WORD}]|[^▁{_WORD}]{stop})*[^▁{_WORD}]?" if stop else "[^▁]*"
    options = [_alternatives(terms, "▁", lookarounds)] if terms else []
    if cuts:
        end = f"(?=▁|\\z|{_bare_terms(bare, lookarounds)})" if bare else r"(?=▁|\z)"
        options.append(_cut_pattern(cuts, lambda _: end))
    pattern = "|".join([*options, f"{start}{rest}"])
    config["pre_tokenizer"]["pretokenizers"].append(isolated_split(pattern))
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


def _cut_pattern(cuts: Collection[tuple[str, str]], end: Callable[[str], str]) -> str:
    """Return a pattern that matches the first parts of pre-tokens that must be split.

    Args:
        cuts: the two parts of each.
        end: returns the lookahead at the end of a pre-token, given its last character.
    """
    seconds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for first, second in cuts:
        seconds[first, end(second[-1])].append(second)
    options = [
        f"{''.join(map(_escape, first))}(?=(?:{trie_pattern(rest)}){last})"
        for (first, last), rest in seconds.items()
    ]
    return "|".join(options)


def _end_of_run(character: str) -> str:
    """Return a lookahead for the end of a run of letters, digits or symbols after a character."""
    for kind in (r"\p{L}", r"\p{N}"):
        if regex.match(kind, character):
            return f"(?!{kind})"
    return r"(?![^\s\p{L}\p{N}])"


@lru_cache(maxsize=2)
def _rewritten(config: str) -> dict[str, Any] | None:
    """Return the pre-tokenizer of an engine, given as JSON, as one split."""
    return single_split(json.loads(config))


def _layout(config: EngineConfig) -> str | None:
    """Return which supported type of pre-tokenizer this is, or None."""
    layout = _plain_layout(config)
    if layout is None and "ByteLevel" in json.dumps(config["pre_tokenizer"]):
        return "sequence" if _rewritten(json.dumps(config)) else None
    if layout == "metaspace" and not _spaces_begin_pieces(config):
        return None
    return layout


def _spaces_begin_pieces(config: EngineConfig) -> bool:
    """Return whether a split at every `▁` changes nothing, in an engine that does not split."""
    if config["pre_tokenizer"] is not None:
        return True
    vocab = config["model"]["vocab"]
    pieces = vocab if isinstance(vocab, dict) else [piece for piece, _ in vocab]
    return not any("▁" in piece.lstrip("▁") for piece in pieces)


def _plain_layout(config: EngineConfig) -> str | None:
    """Return which supported type of pre-tokenizer this is, unless it must be rewritten first."""
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
        # This drops whitespace and puts `▁` before every word, as if one space preceded each,
        # unless the word itself begins with `▁`.
        steps = [config["normalizer"]] if config["normalizer"] else []
        steps += [
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": r"\s+(?=▁)"}, "content": ""},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        ]
        config["normalizer"] = {"type": "Sequence", "normalizers": steps}
    space = parts[-1]
    at_every = space.get("split", True)
    config["pre_tokenizer"] = _sequence(space | {"split": False})
    return "▁?" if at_every else "▁*"


@dataclass(frozen=True)
class _Lookarounds:
    """Lookarounds that exclude places where a term's ends could merge with what is around it."""

    before_word: str = ""
    """Before a term that begins with a letter or digit."""
    before_symbol: str = ""
    """Before a term that begins with a symbol."""
    after: str = ""
    """After a term that ends in a letter or digit."""


def _alternatives(terms: Collection[str], space: str, lookarounds: _Lookarounds) -> str:
    """Return a pattern that matches the terms as whole words.

    Args:
        terms: with or without a leading `space`.
        space: a space or `▁`.
        lookarounds: around the terms; those before a term apply if it has no leading space.
    """
    spaced = [term[1:] for term in terms if term.startswith(space)]
    bare = [term for term in terms if not term.startswith(space)]
    options = [f"{space}{_whole_terms(spaced, lookarounds.after)}"] if spaced else []
    options += [_bare_terms(bare, lookarounds)] if bare else []
    return "|".join(options)


def _bare_terms(terms: Sequence[str], lookarounds: _Lookarounds) -> str:
    """Return a pattern of terms without a leading space."""
    words = [term for term in terms if _IS_WORD.match(term)]
    symbols = [term for term in terms if not _IS_WORD.match(term)]
    after = lookarounds.after
    options = []
    if words:
        options.append(rf"(?<![{_WORD}]){lookarounds.before_word}{_whole_terms(words, after)}")
    if symbols:
        options.append(f"{lookarounds.before_symbol}{_whole_terms(symbols, after)}")
    return "|".join(options)


def _whole_terms(terms: Sequence[str], after: str) -> str:
    """Return a pattern of terms and what may follow them.

    No letter or digit may follow a term that ends in one. A space or the end of the text must
    follow a term that ends in a symbol.
    """
    words = [term for term in terms if _IS_WORD.match(term[-1])]
    symbols = [term for term in terms if not _IS_WORD.match(term[-1])]
    options = [rf"(?:{trie_pattern(words)})(?![{_WORD}]){after}"] if words else []
    options += [rf"(?:{trie_pattern(symbols)})(?=[ ▁]|\z){after}"] if symbols else []
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"


def _gap_pattern(pattern: str) -> str:
    """Return a pattern of the text between two matches, so that no term begins inside it."""
    return rf"(?:(?!{pattern})[\s\S])+"


def _forbid_byte_merges(terms: Collection[str], merges: Sequence[Sequence[str]]) -> str:
    """Return a lookahead that excludes characters which could merge with the end of a term.

    Letters and digits are excluded anyway, so only merges with other characters count.
    """
    lasts: dict[str, set[str]] = defaultdict(set)
    for term in terms:
        lasts[to_characters(term[-1].encode())[-1]].add(term[-1])
    firsts: dict[str, set[str]] = defaultdict(set)
    for left, right in merges:
        if left[-1] in lasts and (following := _characters_from(right[0])):
            firsts[left[-1]].add(following)
    options = [
        f"(?<=[{''.join(map(_escape, sorted(lasts[last])))}])[{''.join(sorted(following))}]"
        for last, following in sorted(firsts.items())
    ]
    return f"(?!{'|'.join(options)})" if options else ""


def _characters_from(first: str) -> str:
    """Return the characters that begin with a byte, as items of a class; none if irrelevant.

    Args:
        first: the byte, in the byte-level alphabet.
    """
    byte = to_bytes(first)[0]
    if byte < 0x80:
        return "" if chr(byte).isalnum() else f"\\x{{{byte:X}}}"
    if byte < 0xC2 or byte > 0xF4:  # not the first byte of a character
        return ""
    size = 2 + (byte >= 0xE0) + (byte >= 0xF0)
    shift = 6 * (size - 1)
    start = (byte & (0x7F >> size)) << shift
    low = max(start, {2: 0x80, 3: 0x800, 4: 0x10000}[size])
    high = min(start + (1 << shift) - 1, 0x10FFFF)
    high = 0xD7FF if byte == 0xED else high
    return f"\\x{{{low:X}}}-\\x{{{high:X}}}"


def _forbid_merges(vocabulary: Collection[str]) -> _Lookarounds:
    """Find characters that can merge; terms must not begin or end between them.

    Letters and digits are never cut apart, so only pairs with a symbol count.
    """
    pairs = {pair for piece in vocabulary for pair in pairwise(piece) if "▁" not in pair}
    is_word = {c: bool(_IS_WORD.match(c)) for c in {c for pair in pairs for c in pair}}

    def lookaround(kinds: Container[tuple[bool, bool]]) -> str:
        lefts: dict[str, set[str]] = defaultdict(set)
        for a, b in pairs:
            if (is_word[a], is_word[b]) in kinds:
                lefts[b].add(_escape(a))
        rights: dict[str, list[str]] = defaultdict(list)
        for right, before in sorted(lefts.items()):
            rights["".join(sorted(before))].append(_escape(right))
        options = [f"(?<=[{left}])[{''.join(right)}]" for left, right in rights.items()]
        return f"(?!{'|'.join(options)})" if options else ""

    return _Lookarounds(
        before_word=lookaround({(False, True)}),
        before_symbol=lookaround({(False, False), (True, False)}),
        after=lookaround({(True, False)}),
    )


def _sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}
