"""Prompts for a policy, and a data source that repeats each set of prompts for several steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idiolect.alignment.chat.conversations import InvalidRecordError, check_left_out, prompt_of
from idiolect.alignment.preference.preferences import Prompt
from idiolect.text.records import numbered_records, unusable
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip
from idiolect.training.data.shuffled_epochs import ShuffledEpochs

__all__ = ["PolicyPrompt", "RolloutSource", "RolloutTurn", "read_prompts"]


@dataclass(frozen=True)
class PolicyPrompt:
    """A prompt for a policy."""

    prompt: Prompt
    record: Mapping[str, Any] = field(default_factory=dict)
    """The other fields of its record, such as an `answer`, for rewards that need them."""


@dataclass(frozen=True)
class RolloutTurn:
    """The prompts of one step."""

    sources: list[int]
    """Indices of the prompts."""
    rollout: int
    """Index of the rollout."""
    step: int
    """The step within the rollout; completions are sampled at step 0."""


class RolloutSource:
    """An endless stream of prompts; each set is returned for all steps of its rollout.

    Args:
        count: Number of prompts.
        rows: Prompts of each rollout.
        steps: Steps of each rollout.
        seed: Random seed of the order.
    """

    def __init__(self, count: int, *, rows: int, steps: int, seed: int = 0) -> None:
        self._epochs = ShuffledEpochs(count, rows=rows, seed=seed)
        self.steps, self.done = steps, 0

    @property
    def rollouts(self) -> int:
        """Number of rollouts in an epoch."""
        return self._epochs.steps

    def take(self) -> RolloutTurn:
        """Return the prompts of the next step."""
        rollout, step = divmod(self.done, self.steps)
        self._epochs.restore({"steps": rollout})
        self.done += 1
        return RolloutTurn(self._epochs.take().sources, rollout, step)

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        return {"steps": self.done}

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.done = state["steps"]


def read_prompts(
    path: Path, *, skipped: Skipped | None = None, max_unreadable: float = MAX_UNREADABLE
) -> list[PolicyPrompt]:
    """Read a file with a `prompt` in each record: a text, or messages that end with a user message.

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
        messages = prompt_of(record, prompt)
        assert not isinstance(messages, str)
        if messages[-1]["role"] == "assistant":  # drop the answer of a conversation
            messages = messages[:-1]
        return messages
    if not isinstance(prompt, str):
        raise InvalidRecordError("no prompt")
    if (reason := unusable(prompt)) is not None:
        raise InvalidRecordError("empty prompt" if reason == "empty" else reason)
    return prompt_of(record, prompt)
