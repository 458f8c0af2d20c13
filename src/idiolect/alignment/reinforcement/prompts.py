"""Prompts for a policy, and a source that repeats each set as often as its rollouts are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idiolect.alignment.chat.conversations import InvalidRecordError, check_left_out, read_messages
from idiolect.alignment.preference.preferences import Prompt
from idiolect.text.records import numbered_records, unusable
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip
from idiolect.training.data.shuffled_epochs import ShuffledEpochs

__all__ = ["PolicyPrompt", "RolloutSource", "RolloutTurn", "read_prompts"]


@dataclass(frozen=True)
class PolicyPrompt:
    """What a policy continues."""

    prompt: Prompt
    record: Mapping[str, Any] = field(default_factory=dict)
    """The other fields of its record, such as an `answer`, for rewards that need them."""


@dataclass(frozen=True)
class RolloutTurn:
    """The prompts of one step."""

    sources: list[int]
    """Numbers of the prompts."""
    rollout: int
    """The number of their rollout."""
    step: int
    """The step within the rollout; new completions are written at 0."""


class RolloutSource:
    """An endless stream of prompts, each set of which is returned for several steps.

    Args:
        count: How many prompts there are.
        rows: Prompts of each rollout.
        steps: Steps of each rollout.
        seed: Random seed of the order.
    """

    def __init__(self, count: int, *, rows: int, steps: int, seed: int = 0) -> None:
        self._epochs = ShuffledEpochs(count, rows=rows, seed=seed)
        self.steps, self.done = steps, 0

    @property
    def rollouts(self) -> int:
        """Rollouts in an epoch."""
        return self._epochs.steps

    def take(self) -> RolloutTurn:
        """Return the prompts of the next step."""
        rollout, step = divmod(self.done, self.steps)
        self._epochs.restore({"steps": rollout})
        self.done += 1
        return RolloutTurn(self._epochs.take().sources, rollout, step)

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {"steps": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.done = state["steps"]


def read_prompts(
    path: Path, *, skipped: Skipped | None = None, max_unreadable: float = MAX_UNREADABLE
) -> list[PolicyPrompt]:
    """Read a file with a `prompt` in each record: a text, or messages that end with the user's.

    Args:
        path: The file.
        skipped: Counts the records that are left out, by reason.
        max_unreadable: The share of records that may be left out.

    Raises:
        InputError: The file cannot be read, too many records are left out, or none is usable.
    """
    left_out, found = Skipped(), list[PolicyPrompt]()
    for place, record in numbered_records(path, left_out, max_unreadable=max_unreadable):
        try:
            found.append(PolicyPrompt(_prompt(record), record))
        except InvalidRecordError as problem:
            skip(left_out, str(problem), f"{path.name} {place}")
    check_left_out(path, left_out, len(found), max_unreadable, "prompts")
    if skipped is not None:
        skipped.update(left_out)
    return found


def _prompt(record: Mapping[str, Any]) -> Prompt:
    prompt = record.get("prompt", record.get("messages"))
    if isinstance(prompt, list):
        messages = read_messages(prompt)
        if messages[-1]["role"] == "assistant":  # of a set of conversations
            messages = messages[:-1]
        return messages
    if not isinstance(prompt, str):
        raise InvalidRecordError("no prompt")
    if (reason := unusable(prompt)) is not None:
        raise InvalidRecordError("empty prompt" if reason == "empty" else reason)
    return prompt
