"""Write texts token by token: choose, add, and let the next ones join as others end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from idiolect.generate.batching.running_batch import RunningBatch
from idiolect.generate.generation import TextRow
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.logits_processors import LogitsProcessor, WrittenRow, nothing_permitted

__all__ = ["choose_tokens", "process_scores", "write_texts"]

_TOKENS = 2048
"""Prompts join up to this many tokens at a time, which bounds the memory of a pass."""


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
    waiting, active = deque(rows), list[TextRow]()
    tokens: list[int] = []
    while waiting or active:
        fresh = list[TextRow]()
        if batch.can_join or not active:
            fresh = _next_texts(waiting, batch_size - len(active))
        scores = batch.step(tokens, fresh)
        active += fresh
        tokens = choose_tokens(scores, active, options, processors)
        logs = scores.log_softmax(-1)
        for place, (row, token) in enumerate(zip(active, tokens, strict=True)):
            yield row, row.take(logs[place], token, ends, options.top_logprobs)
        places = [place for place, row in enumerate(active) if not row.finish_reason]
        if len(places) < len(active):
            batch.keep(places)
            active = [active[place] for place in places]
            tokens = [tokens[place] for place in places]


def _next_texts(waiting: deque[TextRow], most: int) -> list[TextRow]:
    """Take texts that join from those that wait; at least one if there is room."""
    taken, room = list[TextRow](), _TOKENS
    while waiting and len(taken) < most and (not taken or len(waiting[0].source) <= room):
        room -= len(waiting[0].source)
        taken.append(waiting.popleft())
    return taken


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
