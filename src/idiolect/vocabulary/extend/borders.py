r"""Terms that cross the borders of pre-tokens: how they are kept together.

No vocabulary entry can hold `XR-2000B` or `type 2 diabetes` when the pre-tokenizer has cut them
first. So the pattern by which it cuts gets the terms as its first alternative:

    (?: ␣term|term)(?!letter or digit)|the pattern as it was

All else is cut as before: an alternative is tried only where the old pattern, too, would begin a
new piece, and what follows a term begins one because it is neither letter nor digit. SentencePiece
has no border there, only at the space `▁`. But where no piece of the vocabulary holds the two
characters on either side of a place, nothing can merge across it, and cutting there changes
nothing; that is looked up.

Thousands of alternatives would be tried one by one at every word. They are written as a tree by
first letters, and each fork is halved by looking at the next character, so that a word which
begins no term costs a handful of steps.

>>> tree(["XR-2000B", "XR-2000C", "XR"])
'XR(?:\\-2000[BC])?'
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import regex

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

__all__ = ["GPT2_PATTERN", "Pipeline", "isolate", "isolates", "tree"]

GPT2_PATTERN = r" ?\p{L}+| ?\p{N}+|'s|'t|'re|'ve|'m|'ll|'d| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What the engine's `ByteLevel` cuts by. Letters and digits are tried first, since they are the
most; nothing that begins like a contraction begins like them."""

_WORD = r"\p{L}\p{M}\p{N}"
_IS_WORD = regex.compile(f"[{_WORD}]")
_FORK = 4
"""Branches tried one by one before a fork is halved."""

Pipeline = dict[str, Any]


def tree(words: Iterable[str]) -> str:
    """Write words as one pattern, of which the longest word is tried first."""
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return _branch(root)


def _branch(node: dict[str, Any]) -> str:
    # A run of single continuations is walked here, so that long words cost no recursion.
    run = ""
    while len(node) == 1 and "" not in node:
        character, node = next(iter(node.items()))
        run += _escape(character)
    branches = [(_escape(c), _branch(node[c])) for c in sorted(node) if c]
    if not branches:
        return run
    if all(not rest for _, rest in branches):
        body = f"[{''.join(c for c, _ in branches)}]"
    else:
        body = f"(?:{_fork(branches)})"
    return f"{run}{body}?" if "" in node else run + body


def _fork(branches: Sequence[tuple[str, str]]) -> str:
    if len(branches) <= _FORK:
        return "|".join(character + rest for character, rest in branches)
    middle = len(branches) // 2
    return "|".join(
        f"(?=[{''.join(character for character, _ in half)}])(?:{_fork(half)})"
        for half in (branches[:middle], branches[middle:])
    )


def _escape(character: str) -> str:
    special = character in r"\.^$*+?()[]{}|-&~#"
    return f"\\{character}" if special else character


def isolates(pipeline: Pipeline) -> bool:
    """Whether terms can be kept together by this pre-tokenizer."""
    return _layout(pipeline) is not None


def isolate(pipeline: Pipeline, terms: Collection[str], vocabulary: Collection[str]) -> None:
    """Make a pre-tokenizer keep terms together, and the decoder their spaces, in place.

    Args:
        pipeline: the engine's JSON, of a layout for which `isolates` is true. It must not have
            been through here before.
        terms: as the pre-tokenizer sees them, that is normalised, with the space or `▁` before
            them if any.
        vocabulary: the pieces that could merge across a term's ends, if the pre-tokenizer
            cuts at spaces only.
    """
    if not terms:
        return
    layout = _layout(pipeline)
    if layout == "byte-level":
        old = pipeline["pre_tokenizer"]
        pipeline["pre_tokenizer"] = _sequence(
            _split(f"{_alternatives(terms, ' ', '', '')}|{GPT2_PATTERN}"),
            old | {"use_regex": False},
        )
    elif layout == "split":
        split = pipeline["pre_tokenizer"]["pretokenizers"][0]
        pattern = split["pattern"]["Regex"]
        split["pattern"]["Regex"] = f"{_alternatives(terms, ' ', '', '')}|{pattern}"
    else:
        run = _metaspace(pipeline)
        before, after = _joints(vocabulary)
        first = _alternatives(terms, "▁", before, after)
        bare = [term for term in terms if not term.startswith("▁")]
        stop = f"(?!{_bare(bare, before, after)})" if bare else ""
        rest = rf"(?:[{_WORD}]|[^▁{_WORD}]{stop})*[^▁{_WORD}]?" if stop else "[^▁]*"
        pipeline["pre_tokenizer"]["pretokenizers"].append(_split(f"{first}|{run}{rest}"))
        decoder = pipeline["decoder"]
        if decoder and decoder["type"] == "Metaspace" and decoder.get("prepend_scheme") != "never":
            # It drops every `▁` of the first token, which was right while a token held one.
            pipeline["decoder"] = {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ],
            }


def _layout(pipeline: Pipeline) -> str | None:
    cutter = pipeline["pre_tokenizer"]
    if cutter and cutter["type"] == "ByteLevel":
        plain = cutter.get("use_regex", True) and not cutter["add_prefix_space"]
        return "byte-level" if plain else None
    parts = cutter["pretokenizers"] if cutter and cutter["type"] == "Sequence" else [cutter]
    kinds = [part["type"] if part else "" for part in parts]
    if kinds == ["Split", "ByteLevel"]:
        first, second = parts
        plain = not second["add_prefix_space"] and not second.get("use_regex", True)
        matches = (first["behavior"], first["invert"]) in (("Isolated", False), ("Removed", True))
        return "split" if plain and matches and "Regex" in first["pattern"] else None
    if kinds in ([""], ["Split"]):
        spaced = "▁" in str(pipeline["normalizer"])
        known = kinds == [""] or parts[0]["pattern"] in (
            {"Regex": "▁*[^▁]+|▁+"},
            {"String": "▁"},
        )
        return "metaspace" if spaced and known else None
    return "metaspace" if kinds in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]) else None


def _metaspace(pipeline: Pipeline) -> str:
    """Make the pre-tokenizer a sequence that only puts in `▁`; return the run that begins a piece.

    The run tells whether a piece begins at every `▁` or only at the first of several.
    """
    cutter = pipeline["pre_tokenizer"]
    parts = cutter["pretokenizers"] if cutter and cutter["type"] == "Sequence" else [cutter]
    pipeline["pre_tokenizer"] = _sequence()
    if parts[0] is None:
        return "▁*"
    if parts[0]["type"] == "Split":
        return "▁?" if "String" in parts[0]["pattern"] else "▁*"
    if parts[0]["type"] == "WhitespaceSplit":
        # White space is dropped, and a `▁` put before every word: the same as one space each.
        steps = [pipeline["normalizer"]] if pipeline["normalizer"] else []
        steps += [
            {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        ]
        pipeline["normalizer"] = {"type": "Sequence", "normalizers": steps}
    space = parts[-1]
    at_every = space.get("split", True)
    pipeline["pre_tokenizer"] = _sequence(space | {"split": False})
    return "▁?" if at_every else "▁*"


def _alternatives(terms: Collection[str], space: str, before: str, after: str) -> str:
    """Write a pattern that matches the terms as whole words.

    Args:
        terms: with `space` before them or not.
        space: a space or `▁`.
        before: what must not stand before a term without a space.
        after: what must not stand after any term.
    """
    spaced = [term[1:] for term in terms if term.startswith(space)]
    bare = [term for term in terms if not term.startswith(space)]
    options = [f"{space}{_ended(spaced, after)}"] if spaced else []
    options += [_bare(bare, before, after)] if bare else []
    return "|".join(options)


def _bare(terms: Sequence[str], before: str, after: str) -> str:
    words = [term for term in terms if _IS_WORD.match(term)]
    signs = [term for term in terms if not _IS_WORD.match(term)]
    options = [rf"(?<![{_WORD}]){before}{_ended(words, after)}"] if words else []
    options += [_ended(signs, after)] if signs else []
    return "|".join(options)


def _ended(terms: Sequence[str], after: str) -> str:
    """Write terms and what may not, or for those that end in a sign must, follow them."""
    words = [term for term in terms if _IS_WORD.match(term[-1])]
    signs = [term for term in terms if not _IS_WORD.match(term[-1])]
    options = [rf"(?:{tree(words)})(?![{_WORD}]){after}"] if words else []
    options += [rf"(?:{tree(signs)})(?=[ ▁]|\z)"] if signs else []
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})"


def _joints(vocabulary: Collection[str]) -> tuple[str, str]:
    """Find where a word and a sign can merge, and forbid terms to begin or end there.

    Returns:
        Patterns for the place before a term and the place after it.
    """
    joined = [pair for piece in vocabulary for pair in pairwise(piece)]
    kinds = {c: bool(_IS_WORD.match(c)) for c in {c for pair in joined for c in pair}}
    pairs = {(a, b) for a, b in joined if "▁" not in (a, b) and kinds[a] != kinds[b]}
    sides = []
    for word_first in (False, True):
        lefts: dict[str, set[str]] = defaultdict(set)
        for a, b in pairs:
            if kinds[a] is word_first:
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
