"""Preferences from record files: a prompt with a chosen and a rejected completion.

    prompt, chosen, rejected                      texts, or lists of messages
    chosen, rejected                              HH-RLHF: both contain the same prompt
    conversations, chosen, rejected               ShareGPT: {"from", "value"}
    instruction, output_1, output_2, preference   a judged pair: the better one, 1 or 2 (or between)
    prompt, completion, label                     one judged completion (KTO)

A field `system` beside a prompt is its system message.

A pair with equal sides or an empty side teaches nothing and is left out: it is counted, and
reported with its line number. So is a tie.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from idiolect.alignment.chat.conversations import (
    InvalidRecordError,
    Message,
    check_left_out,
    prompt_of,
    read_messages,
)
from idiolect.text.records import numbered_records, unusable
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip

__all__ = [
    "JudgedCompletion",
    "Preference",
    "Prompt",
    "judged_completions",
    "prompt_text",
    "read_judged_completions",
    "read_pairs",
    "read_preferences",
]

Prompt: TypeAlias = str | tuple[Message, ...]
"""A plain text, or messages that end with a user message."""

_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}
_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""Labels as text: CSV cells are text, and a Parquet column may hold numbers."""
_SIDES = (("output_1", "output_2"), ("response1", "response2"), ("response 1", "response 2"))


class _TieError(InvalidRecordError):
    """Neither side is better, which is no error of the file."""


@dataclass(frozen=True)
class Preference:
    """Two completions of a prompt, of which one is better."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float = 0.0
    """By how much the chosen one is better, for a reward model."""


@dataclass(frozen=True)
class JudgedCompletion:
    """A completion judged as good or bad."""

    prompt: Prompt
    completion: str
    good: bool


def read_preferences(
    path: Path, *, skipped: Skipped | None = None, max_unreadable: float = MAX_UNREADABLE
) -> list[Preference]:
    """Read a file with a preference in each record (JSON Lines, JSON, Parquet, CSV; compressed).

    Args:
        path: The file.
        skipped: Counts the records that are left out, by reason.
        max_unreadable: The share of records that may be left out; ties do not count.

    Raises:
        InputError: The file cannot be read, too many records are left out, or none is usable.
    """
    return list(_read(path, _preference, skipped, max_unreadable, "preferences"))


def read_judged_completions(
    path: Path, *, skipped: Skipped | None = None, max_unreadable: float = MAX_UNREADABLE
) -> list[JudgedCompletion]:
    """Read judged completions; both sides of a preference are read as a good and a bad one.

    Args:
        path: The file.
        skipped: As in `read_preferences`.
        max_unreadable: As in `read_preferences`.

    Raises:
        InputError: As for `read_preferences`.
    """
    found: list[JudgedCompletion] = []
    for one in _read(path, _judged, skipped, max_unreadable, "judged completions"):
        found += judged_completions([one]) if isinstance(one, Preference) else [one]
    return found


def read_pairs(
    path: Path, *, skipped: Skipped | None = None, max_unreadable: float = MAX_UNREADABLE
) -> list[tuple[Prompt, str, str]]:
    """Read the answers of two systems to the same prompts; no preference is needed.

    Args:
        path: A file with `output_1` and `output_2` in each record.
        skipped: As in `read_preferences`.
        max_unreadable: As in `read_preferences`.

    Raises:
        InputError: As for `read_preferences`.
    """
    return list(_read(path, _pair, skipped, max_unreadable, "pairs of answers"))


def judged_completions(preferences: Sequence[Preference]) -> list[JudgedCompletion]:
    """Return both sides of each preference as a good and a bad completion."""
    return [
        JudgedCompletion(one.prompt, text, good)
        for one in preferences
        for text, good in ((one.chosen, True), (one.rejected, False))
    ]


def prompt_text(prompt: Prompt) -> str:
    """Return a prompt as plain text: the contents of its messages, one per line."""
    return prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)


def _read(
    path: Path, make: Any, skipped: Skipped | None, max_unreadable: float, what: str
) -> Iterator[Any]:
    left_out, ties = Skipped(), Skipped()
    found = []
    for place, record in numbered_records(path, left_out, max_unreadable=max_unreadable):
        try:
            found.append(make(record))
        except InvalidRecordError as problem:
            counted = ties if isinstance(problem, _TieError) else left_out
            skip(counted, str(problem), f"{path.name} {place}")
    check_left_out(path, left_out, len(found), max_unreadable, what)
    if skipped is not None:
        skipped.update(left_out)
        skipped.update(ties)
    return iter(found)


def _preference(record: Mapping[str, Any]) -> Preference:
    """Return the preference of a record in any of the known forms."""
    for names in _SIDES:
        if all(name in record for name in names):
            return _judged_pair(record, *(record[name] for name in names))
    chosen, rejected = record.get("chosen"), record.get("rejected")
    if chosen is None or rejected is None:
        raise InvalidRecordError("no chosen and rejected")
    prompt = _prompt(record)
    if prompt is None:
        prompt, chosen, rejected = _shared_prompt(chosen, rejected)
    margin = record.get("margin")
    number = 0.0 if margin in (None, "") else _number(margin)
    if number is None:
        raise InvalidRecordError("margin is not a number")
    return _checked(prompt, _completion(chosen), _completion(rejected), number)


def _judged(record: Mapping[str, Any]) -> JudgedCompletion | Preference:
    """Return a completion with its label, or a preference."""
    label = record.get("label")
    good = label if isinstance(label, bool) else None
    if "completion" in record:
        good = _LABELS.get(str(label).strip().lower())
        if good is None and "chosen" not in record:
            raise InvalidRecordError("label is neither true nor false")
    if good is None:
        return _preference(record)
    if isinstance(record.get("messages"), list):
        messages = prompt_of(record, record["messages"])
        assert not isinstance(messages, str)
        prompt, completion = messages[:-1], messages[-1]["content"]
        if messages[-1]["role"] != "assistant" or not prompt:
            raise InvalidRecordError("no answer at the end")
        found: Prompt | None = prompt
    else:
        found, completion = _prompt(record), _completion(record.get("completion"))
    if found is None:
        raise InvalidRecordError("no prompt")
    if not completion.strip():
        raise InvalidRecordError("empty completion")
    return JudgedCompletion(found, completion, good)


def _prompt(record: Mapping[str, Any]) -> Prompt | None:
    """Return the prompt of a record, or None if it has no separate prompt."""
    turns = record.get("prompt", record.get("conversations"))
    if isinstance(turns, list):
        messages = prompt_of(record, turns)
        assert not isinstance(messages, str)
        if messages[-1]["role"] == "assistant":
            raise InvalidRecordError("roles out of order")
        return messages
    if isinstance(turns, str) and turns:
        return prompt_of(record, turns)
    parts = [record.get("instruction"), record.get("input")]
    given = [part for part in parts if isinstance(part, str) and part.strip()]
    return prompt_of(record, "\n\n".join(given)) if given else None


def _completion(value: Any) -> str:
    """Return the text of a completion: a text, a message, or a list of one message."""
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, Mapping):
        value = value.get("content", value.get("value"))
    if not isinstance(value, str) or unusable(value) == "bad UTF-8":
        raise InvalidRecordError("no text")
    return value


def _shared_prompt(chosen: Any, rejected: Any) -> tuple[Prompt, Any, Any]:
    """Return the common first messages of both sides, and the last message of each."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        chosen, rejected = _hh_messages(chosen), _hh_messages(rejected)
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        raise InvalidRecordError("no prompt")
    sides = [read_messages(turns) for turns in (chosen, rejected)]
    if any(side[-1]["role"] != "assistant" or len(side) < 2 for side in sides):
        raise InvalidRecordError("no answer at the end")
    if sides[0][:-1] != sides[1][:-1]:
        raise InvalidRecordError("different prompts")
    return sides[0][:-1], sides[0][-1]["content"], sides[1][-1]["content"]


def _hh_messages(text: str) -> list[Message]:
    """Return the messages of a text in HH-RLHF's format."""
    parts = _HH_TURN.split(text)
    if len(parts) < 3 or parts[0].strip():
        raise InvalidRecordError("no prompt")
    return [
        {"role": _HH_ROLES[name], "content": content.strip()}
        for name, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _pair(record: Mapping[str, Any]) -> tuple[Prompt, str, str]:
    """Return the prompt and both answers of a record."""
    prompt = _prompt(record)
    for first, second in _SIDES:
        if prompt is not None and first in record and second in record:
            return prompt, _completion(record[first]), _completion(record[second])
    raise InvalidRecordError("no prompt with two answers")


def _judged_pair(record: Mapping[str, Any], first: Any, second: Any) -> Preference:
    """Return a pair whose better side is given from 1, or from 0 in Auto-J's files."""
    prompt = _prompt(record)
    if prompt is None:
        raise InvalidRecordError("no prompt")
    zero_based = "response 1" in record
    better = record.get("preference", record.get("label"))
    if "annotator1" in record:
        better = _majority(record)
    if better in (None, "") or better != better:  # NaN is a missing value in Parquet
        raise _TieError("no judgement")
    number = _number(better)
    if number is None:
        raise InvalidRecordError("no judgement")
    number += zero_based
    # AlpacaEval 2's weighted judge writes numbers between 1 and 2.
    if not 1 <= number <= 2 or number == 1.5:
        raise _TieError("tie")
    sides = (_completion(first), _completion(second))
    chosen, rejected = sides if number < 1.5 else sides[::-1]
    return _checked(prompt, chosen, rejected, 0.0)


def _number(value: Any) -> float | None:
    """Return a finite number, also if CSV holds it as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _majority(record: Mapping[str, Any]) -> Any:
    """Return the majority vote of the annotators; 0, a tie, without a majority (PandaLM)."""
    votes = Counter(value for name, value in record.items() if name.startswith("annotator"))
    (best, count), *_ = votes.most_common(1)
    return best if 2 * count > votes.total() else 0


def _checked(prompt: Prompt, chosen: str, rejected: str, margin: float) -> Preference:
    if not chosen.strip() or not rejected.strip():
        raise InvalidRecordError("empty completion")
    if chosen == rejected:
        raise InvalidRecordError("chosen equals rejected")
    return Preference(prompt, chosen, rejected, margin)
