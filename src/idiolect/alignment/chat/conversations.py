"""Conversations from record files: messages, ShareGPT, Alpaca, or a prompt with its response.

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}
    {"instruction": "…", "input": "…", "output": "…"}
    {"prompt": "…", "response": "…"}

A field `system` beside any of these is the system message.

A conversation begins with at most one system message, followed by a user message; user and
assistant alternate, and tool results stand between two assistant messages. A conversation with
another order of roles cannot be rendered: it is left out, counted, and reported with its line
number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from idiolect.errors import InputError
from idiolect.text.records import numbered_records, unusable
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip, summary

__all__ = [
    "Conversation",
    "InvalidRecordError",
    "Message",
    "check_left_out",
    "conversation_of",
    "prompt_of",
    "read_conversations",
    "read_messages",
]

Message: TypeAlias = Mapping[str, str]
"""`role` (`system`, `user`, `assistant` or `tool`) and `content`."""

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
    "function": "tool",
}
"""Role names of published data sets, mapped to the four roles."""
_NEXT = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
"""Which roles may follow each role."""
_RESPONSES = ("response", "completion", "output", "answer")


class InvalidRecordError(Exception):
    """A record that cannot be used, with the reason."""


@dataclass(frozen=True)
class Conversation:
    """A conversation that ends with an answer, or a plain prompt with its response."""

    messages: tuple[Message, ...]
    """The messages; empty for a plain text."""
    prompt: str = ""
    """The plain prompt, used without a chat template."""
    response: str = ""
    """Its completion."""


def read_messages(turns: Any) -> tuple[Message, ...]:
    """Return messages with standard role names, in an order that can be rendered.

    Args:
        turns: A list of `{"role", "content"}` or of `{"from", "value"}`.

    Raises:
        InvalidRecordError: The value is no such list, or the order of roles is wrong.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise InvalidRecordError("no messages")
    found: list[Message] = []
    before: str | None = None
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise InvalidRecordError("no messages")
        name, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        role = _ROLES.get(name) if isinstance(name, str) else None
        if role is None:
            raise InvalidRecordError("unknown role")
        if role not in _NEXT[before]:
            raise InvalidRecordError("roles out of order")
        if not isinstance(content, str) or unusable(content) == "bad UTF-8":
            raise InvalidRecordError("no content")
        found.append({"role": role, "content": content})
        before = role
    return tuple(found)


def prompt_of(record: Mapping[str, Any], turns: str | list[Any]) -> str | tuple[Message, ...]:
    """Return a record's prompt: a text, or messages if there are several or a field `system`.

    Args:
        record: The record, whose `system` is the system message.
        turns: Its prompt, as a text or as a list for `read_messages`.

    Raises:
        InvalidRecordError: The list is no list of messages, or the order of roles is wrong.
    """
    system = record.get("system")
    if isinstance(system, str) and system.strip():
        turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else turns
        turns = [{"role": "system", "content": system}, *turns]
    return turns if isinstance(turns, str) else read_messages(turns)


def conversation_of(record: Mapping[str, Any]) -> Conversation:
    """Return the conversation of a record in any of the known forms.

    Raises:
        InvalidRecordError: The form is unknown, the order of roles is wrong, or an answer is empty.
    """
    for name in ("messages", "conversations"):
        if name in record:
            turns = record[name]
            found = prompt_of(record, turns) if isinstance(turns, list) else read_messages(turns)
            assert not isinstance(found, str)
            return _answered(found)
    answer = next((record[name] for name in _RESPONSES if isinstance(record.get(name), str)), None)
    if isinstance(record.get("instruction"), str) and answer is not None:
        return _answered(_of_alpaca(record, answer))
    prompt = record.get("prompt")
    if isinstance(prompt, list):
        turns = record.get("completion", record.get("response"))
        turns = [{"role": "assistant", "content": turns}] if isinstance(turns, str) else turns
        found = prompt_of(record, [*prompt, *(turns if isinstance(turns, list) else ())])
        assert not isinstance(found, str)
        return _answered(found)
    if not isinstance(prompt, str) or answer is None:
        raise InvalidRecordError("no conversation")
    if (reason := unusable(answer)) is not None:
        raise InvalidRecordError("empty answer" if reason == "empty" else reason)
    if not prompt:
        raise InvalidRecordError("empty prompt")
    given = prompt_of(record, prompt)
    if not isinstance(given, str):  # with a system message
        return Conversation((*given, {"role": "assistant", "content": answer}))
    return Conversation((), prompt, answer)


def read_conversations(
    path: Path, *, skipped: Skipped | None = None, max_unreadable: float = MAX_UNREADABLE
) -> list[Conversation]:
    """Read a file with a conversation in each record (JSON Lines, JSON, Parquet, CSV; compressed).

    Args:
        path: The file.
        skipped: Counts the records that are left out, by reason.
        max_unreadable: The share of records that may be left out.

    Raises:
        InputError: The file cannot be read, too many records are left out, or none is usable.
    """
    left_out = Skipped()
    found: list[Conversation] = []
    for place, record in numbered_records(path, left_out, max_unreadable=max_unreadable):
        try:
            found.append(conversation_of(record))
        except InvalidRecordError as problem:
            skip(left_out, str(problem), f"{path.name} {place}")
    check_left_out(path, left_out, len(found), max_unreadable, "conversations")
    if skipped is not None:
        skipped.update(left_out)
    return found


def check_left_out(
    path: Path, left_out: Skipped, used: int, max_unreadable: float, what: str
) -> None:
    """Raise an error if too many records of a file, or all, were left out.

    Raises:
        InputError: The message counts and names them.
    """
    told = f": {summary(left_out)}" if left_out else ""
    if not used:
        raise InputError(
            f"{path} holds no {what}{told}",
            hint="see docs/alignment.md for the forms that are read",
        )
    total = used + left_out.total()
    if left_out.total() > max_unreadable * total:
        raise InputError(
            f"{path}: {left_out.total():,} of {total:,} {what} cannot be used{told}",
            hint="correct them, or allow a larger share: --max-unreadable",
        )


def _of_alpaca(record: Mapping[str, Any], answer: str) -> tuple[Message, ...]:
    """Return the messages of an instruction, its input and earlier turns."""
    parts = [record["instruction"], record.get("input")]
    question = "\n\n".join(part for part in parts if isinstance(part, str) and part.strip())
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    history: Any = record.get("history")
    for pair in reversed(history) if isinstance(history, list) else ():
        if not isinstance(pair, list) or len(pair) != 2:
            raise InvalidRecordError("no messages")
        said, answered = pair
        turns[:0] = [
            {"role": "user", "content": said},
            {"role": "assistant", "content": answered},
        ]
    system = record.get("system")
    if isinstance(system, str) and system:
        turns.insert(0, {"role": "system", "content": system})
    return read_messages(turns)


def _answered(messages: tuple[Message, ...]) -> Conversation:
    """Check that the conversation ends with an answer, and that no answer is empty."""
    if not messages or messages[-1]["role"] != "assistant":
        raise InvalidRecordError("no answer at the end")
    if any(m["role"] == "assistant" and not m["content"].strip() for m in messages):
        raise InvalidRecordError("empty answer")
    return Conversation(messages)
