"""Log-likelihood of endings given their contexts, as lm-evaluation-harness computes it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor

from idiolect.encoding.text_reader import by_length
from idiolect.errors import InputError
from idiolect.generate.generator import Generator
from idiolect.nn.network import Network

__all__ = ["Likelihood", "encode_ending", "score_endings"]


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of an ending."""

    total: float
    """Sum of the log-probabilities of its tokens."""
    is_greedy: bool
    """Whether greedy decoding would write the ending."""
    is_cut: bool = False
    """Whether the beginning of the context was cut, since the model's context is shorter."""


@torch.inference_mode()
def score_endings(
    generator: Generator, pairs: Sequence[tuple[str, str]], *, tokens_per_batch: int = 2048
) -> list[Likelihood]:
    """Return the log-likelihood of each ending.

    The prefix common to all pairs is read once, and so is a context with several endings.

    Args:
        generator: The model.
        pairs: Contexts and endings; an ending includes the space that separates it, if any.
        tokens_per_batch: Tokens read at a time, padding included.

    Raises:
        InputError: The model has an encoder; or a context is empty, and the model has no token that
            begins a text.
    """
    network = generator.model.network
    if network.kind == "encoder-decoder":
        raise InputError(
            "likelihoods of endings need a model without an encoder", hint="choose a causal model"
        )
    encoded = [_encode(generator, context, ending) for context, ending in pairs]
    if not encoded:
        return []
    rows = [_fitting(generator, ids, start) for ids, start in encoded]
    # Each row reads the last context token itself: its state predicts the first token of the
    # ending.
    shared = _common_length([ids[: start - 1] for ids, start in rows])
    reader, places = _rows_to_read([ids[shared:-1] for ids, _ in rows])
    cache, device = network.new_cache(), network.device
    if shared:
        network(
            torch.tensor([rows[0][0][:shared]], device=device), cache=cache, return_logits=False
        )
    results: list[Likelihood | None] = [None] * len(rows)
    readers: dict[int, list[int]] = {}
    for row, number in enumerate(places):
        readers.setdefault(number, []).append(row)
    for batch in by_length(reader, tokens_per_batch):
        own = deepcopy(cache)
        if shared:
            own.select(torch.zeros(len(batch), dtype=torch.long, device=device))
        longest = max(len(reader[number]) for number in batch)
        # Padding is on the right, where a causal network does not see it.
        padded = [reader[number] + [0] * (longest - len(reader[number])) for number in batch]
        output = network(torch.tensor(padded, device=device), cache=own, return_logits=False)
        for place, number in enumerate(batch):
            mine = readers[number]
            found = _likelihoods(
                network, output.hidden_states[place], [rows[row] for row in mine], shared
            )
            for row, likelihood in zip(mine, found, strict=True):
                results[row] = likelihood
    return [
        replace(one, is_cut=len(ids) < len(whole))
        for one, (ids, _), (whole, _) in zip(results, rows, encoded, strict=True)
        if one is not None
    ]


def _rows_to_read(inputs: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
    """Drop inputs that are a prefix of another one, whose states a causal network shares.

    Returns:
        The inputs to read, and for each given input the index of the one that contains it.

    >>> _rows_to_read([[1, 2], [1, 2, 3], [1, 4], [1, 2]])
    ([[1, 4], [1, 2, 3]], [1, 1, 0, 1])
    """
    kept: list[list[int]] = []
    place: dict[tuple[int, ...], int] = {}
    # In descending order, a prefix comes right after the inputs that begin with it.
    for ids in sorted({tuple(ids) for ids in inputs}, reverse=True):
        if not kept or tuple(kept[-1][: len(ids)]) != ids:
            kept.append(list(ids))
        place[ids] = len(kept) - 1
    return kept, [place[tuple(ids)] for ids in inputs]


def _likelihoods(
    network: Network, states: Tensor, rows: Sequence[tuple[list[int], int]], shared: int
) -> list[Likelihood]:
    """Score the endings that one row of hidden states precedes. Shape: states (length, width)."""
    spans = [range(start - 1 - shared, len(ids) - 1 - shared) for ids, start in rows]
    needed = sorted({place for span in spans for place in span})
    column = {place: number for number, place in enumerate(needed)}
    logs = network.score_vocabulary(states[needed]).float().log_softmax(-1)
    best = logs.argmax(-1)
    results = []
    for (ids, start), span in zip(rows, spans, strict=True):
        own = torch.tensor([column[place] for place in span], device=states.device)
        ending = torch.tensor(ids[start:], device=states.device)
        total = float(logs[own].gather(1, ending[:, None]).sum())
        results.append(Likelihood(total, bool((best[own] == ending).all())))
    return results


def _common_length(rows: Sequence[Sequence[int]]) -> int:
    """Return how many ids all rows begin with in common.

    >>> _common_length([[1, 2, 3], [1, 2, 4, 5]])
    2
    """
    columns = zip(*rows, strict=False)
    return len(list(takewhile(lambda column: len(set(column)) == 1, columns)))


def encode_ending(generator: Generator, context: str, ending: str) -> tuple[list[int], int]:
    """Return the ids of context and ending, and the index at which the ending begins.

    White space at the end of the context moves to the ending, since tokens include the space before
    them. A text that exceeds the model's context is truncated on the left.

    Raises:
        InputError: The context is empty, and the model has no token that begins a text.
    """
    return _fitting(generator, *_encode(generator, context, ending))


def _encode(generator: Generator, context: str, ending: str) -> tuple[list[int], int]:
    """Return all ids of context and ending, and the index at which the ending begins."""
    tokenizer = generator.model.tokenizer
    stripped = context.rstrip()
    ending = context[len(stripped) :] + ending
    context = stripped
    ids = tokenizer.encode(context + ending)
    start = len(tokenizer.encode(context)) if context else 0
    if start == 0:
        first = tokenizer.bos_token_id
        first = tokenizer.eos_token_id if first is None else first
        if first is None:
            raise InputError(
                "an empty context, and the model has no token to begin a text with",
                hint="give the question a context",
            )
        ids, start = [first, *ids], 1
    return ids, min(start, len(ids) - 1)


def _fitting(generator: Generator, ids: list[int], start: int) -> tuple[list[int], int]:
    """Return ids without those at the beginning that exceed the model's context."""
    most = generator.context_length
    if most is not None and len(ids) > most + 1:
        cut = len(ids) - most - 1
        ids, start = ids[cut:], max(1, start - cut)
    return ids, start
