"""The generation loop of continuous batching: choose tokens, append, let waiting texts join."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idiolect.generate.batching.running_batch import RunningBatch
from idiolect.generate.generation import TextRow
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.logits_processors import LogitsProcessor, WrittenRow, nothing_permitted

__all__ = [
    "TextScheduler",
    "WritingCall",
    "WrittenPiece",
    "choose_tokens",
    "process_scores",
    "write_texts",
]

_TOKENS = 2048
"""Maximum prompt tokens that join in one step, which bounds the memory of a forward pass."""


@dataclass(eq=False)
class WritingCall:
    """The texts of one call, which share options and processors."""

    waiting: deque[TextRow]
    """Texts that have not joined yet, in order."""
    options: GenerationOptions
    """How tokens are chosen."""
    processors: Sequence[LogitsProcessor]
    """Change the scores."""
    ends: Sequence[int]
    """Ids that end a text."""
    ended: bool = False
    """Whether the call is cancelled. Its texts leave the batch before the next token."""


@dataclass(frozen=True)
class WrittenPiece:
    """The result of one new token of a text."""

    row: TextRow
    text: str
    """Text that became final; see `Transcript`."""
    is_last: bool
    """Whether the text has ended."""


class TextScheduler:
    """Schedules texts in a running batch; each step generates one token per text.

    Texts of several calls join in round-robin order. A call that fails removes only its own texts.

    Args:
        batch: An empty batch.
        batch_size: Maximum number of texts at the same time.
        tokens: Maximum number of tokens (prompts and new tokens) at the same time, if all texts
            reach their limits; a longer text is generated alone. By default unlimited.
    """

    def __init__(self, batch: RunningBatch, batch_size: int, tokens: int | None = None) -> None:
        self._batch, self._batch_size, self._most_tokens = batch, batch_size, tokens
        self._calls = deque[WritingCall]()
        self._active = list[tuple[WritingCall, TextRow]]()

    @property
    def busy(self) -> bool:
        """Whether there are unfinished texts."""
        return bool(self._active or self._calls)

    def add(self, call: WritingCall) -> None:
        """Queue the texts of a call. Thread-safe."""
        if call.waiting:
            self._calls.append(call)

    def step(self) -> list[tuple[WritingCall, WrittenPiece | Exception]]:
        """Generate one token per text; return the new pieces, or a call's exception."""
        self._keep([place for place, (call, _) in enumerate(self._active) if not call.ended])
        fresh = self._next_texts() if self._batch.can_join or not self._active else []
        if not fresh and not self._active:
            return []
        tokens = [row.ids[-1] for _, row in self._active]
        scores = self._batch.step(tokens, [row for _, row in fresh])
        self._active += fresh
        logs = scores.log_softmax(-1)
        found = list[tuple[WritingCall, WrittenPiece | Exception]]()
        for call in dict.fromkeys(call for call, _ in self._active):
            places = [place for place, (other, _) in enumerate(self._active) if other is call]
            rows = [self._active[place][1] for place in places]
            own = scores if len(places) == len(scores) else scores[places]
            try:
                chosen = choose_tokens(own, rows, call.options, call.processors)
            except Exception as error:  # raised by the caller's processors
                call.ended = True
                found.append((call, error))
                continue
            for place, row, token in zip(places, rows, chosen, strict=True):
                text = row.take(logs[place], token, call.ends, call.options.top_logprobs)
                found.append((call, WrittenPiece(row, text, bool(row.finish_reason))))
        self._keep([n for n, (_, row) in enumerate(self._active) if not row.finish_reason])
        return found

    def _keep(self, places: Sequence[int]) -> None:
        if len(places) < len(self._active):
            self._batch.keep(places)
            self._active = [self._active[place] for place in places]

    def _next_texts(self) -> list[tuple[WritingCall, TextRow]]:
        """Take the next joining texts from the queue; at least one if there is room."""
        taken, room = list[tuple[WritingCall, TextRow]](), _TOKENS
        reserved = sum(_reserve(row) for _, row in self._active)
        most = self._batch_size - len(self._active)
        while self._calls and len(taken) < most:
            call = self._calls[0]
            if call.ended or not call.waiting:
                self._calls.popleft()
                continue
            row = call.waiting[0]
            reserved += _reserve(row)
            is_first = not taken and not self._active
            if self._most_tokens is not None and reserved > self._most_tokens and not is_first:
                break
            if taken and len(row.source) > room:
                break
            room -= len(row.source)
            taken.append((call, call.waiting.popleft()))
            self._calls.rotate(-1)
        return taken


def _reserve(row: TextRow) -> int:
    return len(row.source) + row.limit


def write_texts(
    batch: RunningBatch,
    rows: Sequence[TextRow],
    options: GenerationOptions,
    processors: Sequence[LogitsProcessor],
    ends: Sequence[int],
    batch_size: int,
) -> Iterator[tuple[TextRow, str]]:
    """Generate all texts; after each token, yield the text and its newly final part.

    Args:
        batch: An empty batch.
        rows: The texts, in the order in which they join.
        options: How tokens are chosen.
        processors: Change the scores.
        ends: Ids that end a text.
        batch_size: Maximum number of texts at the same time.
    """
    scheduler = TextScheduler(batch, batch_size)
    scheduler.add(WritingCall(deque(rows), options, processors, ends))
    while scheduler.busy:
        for _, found in scheduler.step():
            if isinstance(found, Exception):
                raise found
            yield found.row, found.text


def choose_tokens(
    scores: Tensor,
    rows: Sequence[TextRow],
    options: GenerationOptions,
    processors: Sequence[LogitsProcessor],
) -> list[int]:
    """Return the next token of each text. Shape: scores (texts, vocabulary)."""
    processed = process_scores(scores, rows, processors)
    if not options.do_sample:
        chosen: list[int] = processed.argmax(-1).tolist()
        return chosen
    uniform = [row.random.random() for row in rows]
    if options.mirostat_tau:
        processed = options.sampling.filter(processed)
        return [
            row.mirostat.draw(processed[place], uniform[place])
            for place, row in enumerate(rows)
            if row.mirostat is not None
        ]
    drawn = options.sampling.draw(processed, torch.tensor(uniform, device=scores.device))
    tokens: list[int] = drawn.tolist()
    return tokens


def process_scores(
    scores: Tensor, rows: Sequence[WrittenRow], processors: Sequence[LogitsProcessor]
) -> Tensor:
    """Return the scores after all processors. Shape: (texts, vocabulary).

    Raises:
        InputError: They forbid all tokens of a text.
    """
    if not processors:
        return scores
    scores = scores.clone()
    for processor in processors:
        scores = processor(scores, rows)
    if bool((scores.amax(-1) == float("-inf")).any()):
        raise nothing_permitted()
    return scores
