"""Log-likelihood of endings after their contexts, as lm-evaluation-harness computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from idiolect.errors import InputError
from idiolect.generate.generator import Generator

__all__ = ["Likelihood", "score_endings"]


@dataclass(frozen=True)
class Likelihood:
    """How likely an ending is."""

    total: float
    """Sum of the log-probabilities of its tokens."""
    is_greedy: bool
    """Whether each token is the likeliest one."""


@torch.inference_mode()
def score_endings(generator: Generator, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
    """Return the log-likelihood of each ending. What the pairs begin with in common is read once.

    Args:
        generator: The model.
        pairs: Contexts and endings; the ending is separated as it should be.
    """
    rows = [_encode(generator, context, ending) for context, ending in pairs]
    if generator.model.network.kind == "encoder-decoder":
        raise InputError(
            "likelihoods of endings need a model without an encoder", hint="choose a causal model"
        )
    network = generator.model.network
    # Each row reads the last context token itself: its state gives the first token's probability.
    shared = _common_length([ids[: start - 1] for ids, start in rows])
    cache, device = network.new_cache(), network.device
    if shared:
        network(
            torch.tensor([rows[0][0][:shared]], device=device), cache=cache, return_logits=False
        )
        cache.select(torch.zeros(len(rows), dtype=torch.long, device=device))
    longest = max(len(ids) for ids, _ in rows) - 1
    # Padding follows the text, where a causal network does not see it.
    padded = [ids[shared:-1] + [0] * (longest - len(ids) + 1) for ids, _ in rows]
    hidden = network(torch.tensor(padded, device=device), cache=cache, return_logits=False)
    results = []
    for row, (ids, start) in enumerate(rows):
        states = hidden.hidden_states[row, start - 1 - shared : len(ids) - 1 - shared]
        logs = network.score_vocabulary(states).float().log_softmax(-1)
        ending = torch.tensor(ids[start:], device=device)
        total = float(logs.gather(1, ending[:, None]).sum())
        results.append(Likelihood(total, bool((logs.argmax(-1) == ending).all())))
    return results


def _common_length(rows: Sequence[Sequence[int]]) -> int:
    """Return how many ids all rows begin with in common.

    >>> _common_length([[1, 2, 3], [1, 2, 4, 5]])
    2
    """
    columns = zip(*rows, strict=False)
    return len(list(takewhile(lambda column: len(set(column)) == 1, columns)))


def _encode(generator: Generator, context: str, ending: str) -> tuple[list[int], int]:
    """Return the ids of context and ending, and where the ending begins.

    White space at the end of the context belongs to the ending, since tokens hold it in front. Text
    that does not fit into the model's context is cut at the start.
    """
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
    start = min(start, len(ids) - 1)
    most = generator.context_length
    if most is not None and len(ids) > most + 1:
        cut = len(ids) - most - 1
        ids, start = ids[cut:], max(1, start - cut)
    return ids, start
