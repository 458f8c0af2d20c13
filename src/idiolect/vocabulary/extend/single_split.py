r"""Rewrite a sequence of pre-tokenizers as one split by one pattern.

Many byte-level tokenizers split a text several times: SmolLM2 first isolates every digit, then
applies GPT-2's pattern to the text between digits. A term such as `type 2 diabetes` can be
protected only in a single split, so the splits are first combined into one:

    Digits, then ` ?\p{L}+|…|\s+(?!\S)|\s+`   →   \p{N}| ?\p{L}+|…|\s+(?![^\s\p{N}])|\s+

A later pattern sees only the pieces left by the earlier splits. So (1) between the earlier matches
it is narrowed to the characters at which no earlier pattern matches, and (2) inside the earlier
matches it splits further, or leaves them whole. Both are decided from the sets of characters that
each part of a pattern matches. The result is tested on unusual text before it is used.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from tokenizers import Regex, pre_tokenizers

from idiolect.vocabulary.extend.split_syntax import (
    Atom,
    Characters,
    Choice,
    Edge,
    Look,
    Repeat,
    Sequence,
    UnsupportedPatternError,
    character_class,
    characters_of,
    consumed,
    first_characters,
    isolated_characters,
    matched_alone,
    narrow,
    parse,
    render,
)
from idiolect.vocabulary.extend.unusual_text import unusual_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GPT2_PATTERN", "isolated_split", "matches_everywhere", "single_split"]

GPT2_PATTERN = r" ?\p{L}+| ?\p{N}+|'s|'t|'re|'ve|'m|'ll|'d| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The split pattern of the engine's `ByteLevel`. Letters and digits come first, because they are
the most frequent; this is equivalent, since no contraction starts with one."""


def single_split(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return one split with the same effect as a sequence of byte-level pre-tokenizers.

    Args:
        config: the JSON of an engine; unchanged.

    Returns:
        The JSON of `Sequence[Split, ByteLevel]`; None if no such split exists or was found.
    """
    pattern = _combined_pattern(json.dumps(config["pre_tokenizer"]))
    if pattern is None:
        return None
    steps = _steps(config["pre_tokenizer"])
    last = next(step for step in steps if step["type"] == "ByteLevel")
    rewritten = {
        "type": "Sequence",
        "pretokenizers": [isolated_split(pattern), last | {"use_regex": False}],
    }
    return rewritten if _same_ids(config, rewritten) else None


def isolated_split(pattern: str) -> dict[str, Any]:
    """Return the JSON of a split whose matches, and the text between them, are pre-tokens."""
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


@cache
def matches_everywhere(pattern: str) -> bool:
    """Return whether a pattern certainly leaves no text between its matches."""
    try:
        return bool(_matched(parse(pattern)).all())
    except UnsupportedPatternError:
        return False


def _same_ids(config: dict[str, Any], pre_tokenizer: dict[str, Any]) -> bool:
    texts = unusual_texts()
    ids = []
    for changed in (config, config | {"pre_tokenizer": pre_tokenizer}):
        engine = tokenizers.Tokenizer.from_str(json.dumps(changed))
        encodings = engine.encode_batch_fast(texts, add_special_tokens=False)
        ids.append([encoding.ids for encoding in encodings])
    return ids[0] == ids[1]


@cache
def _combined_pattern(pre_tokenizer: str) -> str | None:
    """Combine the steps of a sequence, given as JSON; None if they cannot be combined."""
    try:
        steps = _steps(json.loads(pre_tokenizer))
        combined: _Combination | None = None
        for choice in _choices(steps):
            combined = combined.then(choice) if combined else _Combination.of(choice)
        if combined is None:
            return None
        pattern = render(combined.choice)
        Regex(pattern)  # the engine's own syntax check
    except (UnsupportedPatternError, RecursionError):
        return None
    except Exception:
        return None
    return pattern


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer["type"] != "Sequence":
        return [pre_tokenizer]
    return [step for part in pre_tokenizer["pretokenizers"] for step in _steps(part)]


def _choices(steps: list[dict[str, Any]]) -> Iterator[Choice]:
    """Yield the pattern at which each step splits.

    A step after `ByteLevel` sees the bytes of a character as several characters. It is treated as
    if it came before `ByteLevel`; testing the result shows whether this is equivalent.
    """
    if sum(step["type"] == "ByteLevel" for step in steps) != 1:
        raise UnsupportedPatternError("not one ByteLevel")
    for step in steps:
        if step["type"] == "ByteLevel":
            if step["add_prefix_space"]:
                raise UnsupportedPatternError("a space before every pre-token")
            if step.get("use_regex", True):
                yield parse(GPT2_PATTERN)
        elif step["type"] == "Digits":
            yield _class_cut(r"\p{N}", pre_tokenizers.Digits(), each=step["individual_digits"])
        elif step["type"] == "Punctuation" and step["behavior"] in ("Isolated", "Contiguous"):
            each = step["behavior"] == "Isolated"
            yield _class_cut(
                r"[\p{P}$+<=>^`|~]", pre_tokenizers.Punctuation("contiguous"), each=each
            )
        elif step["type"] == "Split":
            yield _split_choice(step)
        else:
            raise UnsupportedPatternError(step["type"])


def _class_cut(usual: str, runs: pre_tokenizers.PreTokenizer, *, each: bool) -> Choice:
    """Return the pattern of a split at a class of characters, one by one or in runs.

    Args:
        usual: the class as a regular expression.
        runs: a pre-tokenizer that isolates runs of the class; its Unicode version may differ from
            that of the regular expressions.
        each: whether every character of the class becomes a piece of its own.
    """
    characters = isolated_characters(runs)
    known = characters_of(usual)
    text = usual
    if (known & ~characters).any():
        text = character_class(characters)
    elif (characters & ~known).any():
        text = f"[{_class_items(usual)}{_class_items(character_class(characters & ~known))}]"
    atom = Atom(text, characters)
    return ((atom,),) if each else ((Repeat(atom, "+"),),)


def _split_choice(step: dict[str, Any]) -> Choice:
    how = step["behavior"], step["invert"]
    pattern = step["pattern"]
    choice = parse(pattern.get("Regex") or re.escape(pattern["String"]))
    # In the second case text between matches is removed, so there must not be any.
    total = bool(_matched(choice).all())
    if how != ("Isolated", False) and not (how == ("Removed", True) and total):
        raise UnsupportedPatternError("a split that does not isolate its matches")
    return choice


def _matched(choice: Choice) -> Characters:
    """Return the characters at which a pattern matches, regardless of the text that follows."""
    none = np.zeros_like(first_characters(()))
    return reduce(np.logical_or, (atom.characters for atom in matched_alone(choice)), none)


@dataclass(frozen=True)
class _Combination:
    """Several steps of a sequence, combined into one pattern."""

    choice: Choice
    matched: Characters
    """Characters at which it certainly matches."""
    classes: tuple[Atom, ...]
    """Atoms that match these characters."""

    @classmethod
    def of(cls, choice: Choice) -> _Combination:
        return cls(choice, _matched(choice), tuple(matched_alone(choice)))

    def then(self, choice: Choice) -> _Combination:
        """Add a step that splits the pieces of the previous steps."""
        inside: list[Sequence] = []
        for i, sequence in enumerate(self.choice):
            others = self.choice[:i] + self.choice[i + 1 :]
            try:
                inside += _cut_matches(sequence, choice, others)
            except UnsupportedPatternError:
                if (first_characters(choice) & consumed(sequence) & _known()).any():
                    raise
                inside.append(sequence)
        between = narrow(choice, self._outside, self._edge)
        return _Combination(
            (*inside, *between),
            self.matched | _matched(between),
            (*self.classes, *matched_alone(between)),
        )

    def _outside(self, atom: Atom) -> Atom | None:
        """Narrow an atom to the characters at which this pattern does not match."""
        begins = first_characters(self.choice)
        if not (atom.characters & begins).any():
            return atom
        left = atom.characters & ~self.matched
        if not left.any():
            return None
        if (left & begins).any():  # whether it matches here depends on what follows
            return Atom(f"(?:(?!{render(self.choice)}){atom.text})", left, elsewhere=True)
        removed = [a for a in self.classes if (a.characters & atom.characters).any()]
        listed = min(
            "".join(_class_items(a.text) for a in removed),
            _class_items(character_class(atom.characters & ~left)),
            key=len,
        )
        if atom.text.startswith("[^") and "&&" not in atom.text:
            return Atom(f"{atom.text[:-1]}{listed}]", left)
        return Atom(f"(?:(?![{listed}]){atom.text})", left)

    def _edge(self, text: str) -> str:
        if text in ("^", "\\A"):
            raise UnsupportedPatternError("an edge after a cut")
        return f"(?:{text}|(?={render(self.choice)}))"


def _known() -> Characters:
    """Return the characters that are assigned in the regex engine's version of Unicode.

    A difference at other characters, such as digits of a newer version, is tolerated.
    """
    return characters_of(r"\P{Cn}")


def _class_items(text: str) -> str:
    """Return a character class as an item of another class."""
    plain = text.startswith("[") and text[1:2] != "^" and "&&" not in text
    return text[1:-1] if plain else text


def _cut_matches(sequence: Sequence, choice: Choice, others: Choice) -> list[Sequence]:
    """Return the pieces of the matches of a sequence after they are split by a further pattern."""
    takes: Sequence = tuple(item for item in sequence if not isinstance(item, Look | Edge))
    if len(takes) == 1 and isinstance(takes[0], Atom):
        return [sequence]  # one character cannot be split
    choice = tuple(option for option in choice if not _only_ends(option, takes))
    alphabet = Atom(".", consumed(sequence))
    if not narrow(choice, partial(_inside, alphabet), partial(_end_of, alphabet)):
        return [sequence]
    before, run = takes[:-1], takes[-1]
    behind = sequence[len(takes) :]
    looks = [item for item in sequence[: len(takes)] if isinstance(item, Look | Edge)]
    if not (isinstance(run, Repeat) and isinstance(run.item, Atom) and len(before) <= 1) or looks:
        raise UnsupportedPatternError("a match that is cut again")
    inner = narrow(choice, partial(_inside, run.item), partial(_end_of, run.item))
    if not before and (not inner or _is_run(inner[0], run.item)):
        return [sequence]
    pieces = _cut_run(before, run, choice, others)
    if not behind:
        return pieces
    following = Look("(?=", ((Repeat(run.item, "*"), *behind),))
    return [(*piece, following) for piece in pieces]


def _only_ends(option: Sequence, takes: Sequence) -> bool:
    """Return whether an alternative can match only at the end of a text, where nothing is split."""
    if not (option and isinstance(option[-1], Edge) and option[-1].text in ("$", "\\z")):
        return False
    ends = np.zeros_like(first_characters(()))
    for i, item in reversed(list(enumerate(takes))):
        if i or not isinstance(item, Atom):  # a piece of one character cannot be split
            ends = ends | consumed((item,))
        if not (isinstance(item, Repeat) and item.optional):
            break
    return not ((consumed(option[-2:-1]) | characters_of(r"\n")) & ends).any()


def _cut_run(before: Sequence, run: Repeat, cut: Choice, others: Choice) -> list[Sequence]:
    """Return the pieces of a run of characters that at most one other character precedes."""
    atom = run.item
    taken = reduce(np.logical_or, map(consumed, others), np.zeros_like(first_characters(())))
    if (
        not isinstance(atom, Atom)
        or run.quantifier not in ("+", "++")
        or ((taken & atom.characters).any() and not atom.elsewhere)
    ):
        raise UnsupportedPatternError("a run that is cut again")
    inner = narrow(cut, partial(_inside, atom), partial(_end_of, atom))
    lead = _optional_atom(before)
    lead = lead and _without(lead, atom)  # a character in both sets begins the run
    pieces: list[Sequence] = []
    if lead and (lead.characters & first_characters(cut)).any():
        kinds = matched_alone(cut)
        if len(cut) != 1 or len(kinds) != 1:
            raise UnsupportedPatternError("a run whose beginning is cut off")
        own = _inside(lead, kinds[0])
        assert own is not None
        first = inner[0][0] if inner else None
        joined = (Repeat(first.item, "*"),) if isinstance(first, Repeat) else ()
        pieces.append((own, Look("(?=", ((atom,),)), *joined))
        lead = _without(lead, kinds[0])
    optional = (Repeat(lead, "?"),) if lead else ()
    uncovered = atom.characters & ~_matched(inner)
    if uncovered.any():
        rest = atom
        if inner:
            text = f"(?:(?!{render(inner)}){atom.text})"
            rest = Atom(text, uncovered, elsewhere=atom.elsewhere)
        pieces.append((*optional, Repeat(rest, "+")))
    pieces += inner
    if lead and inner:
        pieces.append((lead, Look("(?=", inner if uncovered.any() else ((atom,),))))
    return pieces


def _optional_atom(before: Sequence) -> Atom | None:
    """Return the atom that may precede a run; None if nothing precedes it."""
    if not before:
        return None
    item = before[0]
    if not (isinstance(item, Repeat) and item.quantifier == "?" and isinstance(item.item, Atom)):
        raise UnsupportedPatternError("a match that is cut again")
    return item.item


def _is_run(sequence: Sequence, atom: Atom) -> bool:
    """Return whether a sequence matches every run of an atom's characters as a whole."""
    if len(sequence) != 1 or not isinstance(sequence[0], Repeat):
        return False
    item = sequence[0].item
    covers = isinstance(item, Atom) and not (atom.characters & ~item.characters).any()
    return covers and sequence[0].takes_all


def _inside(alphabet: Atom, atom: Atom) -> Atom | None:
    """Narrow an atom to the characters of an alphabet."""
    left = atom.characters & alphabet.characters
    if not left.any():
        return None
    if bool((left == atom.characters).all()):
        return atom
    if bool((left == alphabet.characters).all()):
        return Atom(alphabet.text, left)
    return Atom(f"(?:(?={alphabet.text}){atom.text})", left)


def _end_of(alphabet: Atom, edge: str) -> str:
    """Return a pattern of the end of a run of an alphabet's characters."""
    if edge not in ("$", "\\z") or (alphabet.characters & characters_of(r"\n")).any():
        raise UnsupportedPatternError(f"{edge} inside a match")
    return f"(?!{alphabet.text})"


def _without(atom: Atom, other: Atom) -> Atom | None:
    """Narrow an atom to the characters that another does not match."""
    if not (atom.characters & other.characters).any():
        return atom
    left = atom.characters & ~other.characters
    if not left.any():
        return None
    return Atom(f"(?:(?!{other.text}){atom.text})", left, elsewhere=atom.elsewhere)
