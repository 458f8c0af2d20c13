"""Write texts token by token: choose, add, and let the next ones join as others end."""

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
"""Prompts join up to this many tokens at a time, which bounds the memory of a pass."""


@dataclass(eq=False)
class WritingCall:
    """Texts that are written by the same rules."""

    waiting: deque[TextRow]
    """Those that have not joined, in their order."""
    options: GenerationOptions
    """How tokens are chosen."""
    processors: Sequence[LogitsProcessor]
    """Change the scores."""
    ends: Sequence[int]
    """Ids that end a text."""
    ended: bool = False
    """Whether nobody wants its texts any more. They leave before the next token."""


@dataclass(frozen=True)
class WrittenPiece:
    """A text has grown by a token."""

    row: TextRow
    text: str
    """What became certain of it."""
    is_last: bool
    """Whether the text has ended."""


class TextScheduler:
    """Decides which texts are in a running batch, and writes a token of each in a step.

    Texts of several calls join in turn, one of each. A call that fails takes only its own texts
    with it.

    Args:
        batch: An empty batch.
        batch_size: The most texts at the same time.
        tokens: The most tokens of prompts and texts at the same time, counted as if all texts were
            written up to their limits; a longer text is written alone. By default any number.
    """

    def __init__(self, batch: RunningBatch, batch_size: int, tokens: int | None = None) -> None:
        self._batch, self._batch_size, self._most_tokens = batch, batch_size, tokens
        self._calls = deque[WritingCall]()
        self._active = list[tuple[WritingCall, TextRow]]()

    @property
    def busy(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._active or self._calls)

    def add(self, call: WritingCall) -> None:
        """Let the texts of a call join when there is room. Any thread may call it."""
        if call.waiting:
            self._calls.append(call)

    def step(self) -> list[tuple[WritingCall, WrittenPiece | Exception]]:
        """Write a token of each text; return what is new, and what a call failed with."""
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
            except Exception as error:  # processors are the caller's
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
        """Take texts that join from those that wait; at least one if there is room."""
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
    """Write all texts; yield each as it grows, with the text that became certain.

    Args:
        batch: An empty batch.
        rows: The texts, in the order in which they join.
        options: How tokens are chosen.
        processors: Change the scores.
        ends: Ids that end a text.
        batch_size: The most texts at the same time.
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
        InputError: They leave a text no token.
    """
    if not processors:
        return scores
    scores = scores.clone()
    for processor in processors:
        scores = processor(scores, rows)
    if bool((scores.amax(-1) == float("-inf")).any()):
        raise nothing_permitted()
    return scores
