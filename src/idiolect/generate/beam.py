"""Beam search, with a length penalty, three ways to end, and diverse groups.

The candidates, the finished texts and the end are those of `transformers`: at each step the
max(2, 1 + ends) · k best continuations are looked at; those among the first k that end are finished
texts, and the best k others are continued.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.logits_processors import LogitsProcessor, WrittenRow

__all__ = ["Beam", "BeamStep", "beam_search"]


@dataclass
class Beam:
    """One text of a beam search."""

    ids: list[int]
    """Generated ids."""
    logprobs: list[float]
    """Log-probability of each, by the network."""
    score: float
    """Running: the sum of processed log-probabilities. Finished: divided by the length penalty."""
    ended: bool = True
    """Whether an end token or stop string ended it."""


@dataclass(frozen=True)
class BeamStep:
    """One step of a search, for those who want to see the tree."""

    text: int
    """Number of the prompt."""
    candidates: list[tuple[list[int], int, float]]
    """The ids before, the new token and the summed log-probability, best first."""
    kept: list[list[int]]
    """The ids that are continued."""


@dataclass
class _Search:
    """The beams of one group of one prompt."""

    number: int
    prompt: list[int]
    limit: int
    running: list[Beam]
    finished: list[Beam] = field(default_factory=list)
    done: bool = False


def beam_search(
    decoding: Decoding,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    options: GenerationOptions,
    *,
    eos_token_id: Sequence[int],
    processors: Sequence[LogitsProcessor] = (),
    stops: Callable[[Sequence[int]], bool] | None = None,
    watch: Callable[[BeamStep], None] | None = None,
) -> list[list[Beam]]:
    """Search the most likely continuations of a batch of prompts.

    Args:
        decoding: The batch, not started.
        prompts: The ids of each prompt that the decoder continues.
        limits: Maximum number of new tokens of each prompt.
        options: Beams, penalties and the end of the search.
        eos_token_id: Ids that end a text.
        processors: Applied to the log-probabilities.
        stops: Whether generated ids complete a stop string.
        watch: Called after each step of each group.

    Returns:
        For each prompt the finished beams, best first.
    """
    groups, ends = options.num_beam_groups, frozenset(eos_token_id)
    size = options.num_beams // groups
    keep = max(2, 1 + len(ends)) * size
    searches = [
        _Search(number, list(prompt), limit, [Beam([], [], 0.0)])
        for number, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
        for _ in range(groups)
    ]
    scores = decoding.start()
    copies = torch.arange(len(scores), device=scores.device).repeat_interleave(groups)
    decoding.select(copies)
    scores, active = scores[copies], list(searches)
    while active:
        own = scores.log_softmax(-1)
        rows = [WrittenRow(s.prompt, beam.ids) for s in active for beam in s.running]
        processed = own.clone() if processors else own
        for processor in processors:
            processed = processor(processed, rows)
        parents: list[int] = []
        chosen: dict[int, list[int]] = {}
        offset = 0
        for search in active:
            block = slice(offset, offset + len(search.running))
            taken = chosen.setdefault(search.number, [])
            ranked = _diverse(processed[block], taken, options.diversity_penalty)
            places = _advance(search, ranked, own[block], size, keep, options, ends, stops, watch)
            taken += [beam.ids[-1] for beam in search.running]
            if not search.done:
                parents += [offset + place for place in places]
            offset = block.stop
        active = [search for search in active if not search.done]
        if active:
            decoding.select(torch.tensor(parents, device=scores.device))
            tokens = [beam.ids[-1] for search in active for beam in search.running]
            scores = decoding.step(torch.tensor(tokens, device=scores.device))
    results: list[list[Beam]] = [[] for _ in prompts]
    for search in searches:
        results[search.number] += search.finished
    return [sorted(beams, key=lambda beam: -beam.score) for beams in results]


def _diverse(scores: Tensor, taken: Sequence[int], penalty: float) -> Tensor:
    """Subtract the penalty for each time that an earlier group chose a token."""
    if not taken or not penalty:
        return scores
    counts = torch.bincount(torch.tensor(taken), minlength=scores.shape[-1]).to(scores)
    return scores - penalty * counts


def _advance(
    search: _Search,
    scores: Tensor,
    own: Tensor,
    size: int,
    keep: int,
    options: GenerationOptions,
    ends: frozenset[int],
    stops: Callable[[Sequence[int]], bool] | None,
    watch: Callable[[BeamStep], None] | None,
) -> list[int]:
    """Continue the beams of a search by one token; return which beams the new ones come from."""
    vocabulary = scores.shape[-1]
    running = scores.new_tensor([beam.score for beam in search.running])
    total = (scores + running[:, None]).flatten()
    values, places = total.topk(min(keep, len(total)))
    candidates = list(zip(values.tolist(), places.tolist(), strict=True))
    length = len(search.running[0].ids) + 1
    full_before = len(search.finished) >= size and options.early_stopping is True
    new: list[Beam] = []
    origins: list[int] = []
    for rank, (value, place) in enumerate(candidates):
        if value == float("-inf"):
            break
        beam, token = search.running[place // vocabulary], place % vocabulary
        ids = [*beam.ids, token]
        ended = token in ends or (stops is not None and stops(ids))
        if not ended and length < search.limit:
            if len(new) < size:
                logprobs = [*beam.logprobs, float(own[place // vocabulary, token])]
                new.append(Beam(ids, logprobs, value, ended=False))
                origins.append(place // vocabulary)
        elif rank < size and not full_before:
            logprobs = [*beam.logprobs, float(own[place // vocabulary, token])]
            score = value / length**options.length_penalty
            search.finished.append(Beam(ids, logprobs, score, ended))
    search.finished = sorted(search.finished, key=lambda beam: -beam.score)[:size]
    if watch is not None:
        seen = [(search.running[p // vocabulary].ids, p % vocabulary, v) for v, p in candidates]
        watch(BeamStep(search.number, seen, [beam.ids for beam in new]))
    search.running = new or search.running
    search.done = not new or not _can_improve(search, size, length, options)
    return origins


def _can_improve(search: _Search, size: int, length: int, options: GenerationOptions) -> bool:
    if len(search.finished) < size:
        return True
    if options.early_stopping is True:
        return False
    if options.early_stopping == "never" and options.length_penalty > 0:
        length = search.limit
    best: float = search.running[0].score / length**options.length_penalty
    return best > search.finished[-1].score
