"""Greedy search and sampling over token ids, without a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.generate.decoding import Decoding
from idiolect.generate.token_sampling import Sampling
from idiolect.nn.cache import Cache
from idiolect.nn.network import Network

__all__ = ["greedy", "sample"]

_Choose = Callable[[Tensor, Tensor], Tensor]
"""Chooses a token for each row: scores (rows, vocabulary) and row numbers to tokens (rows,)."""


def greedy(
    network: Network,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int,
    eos_token_id: Collection[int] = (),
) -> Tensor:
    """Continue texts with the most likely token at each step.

    The decoder of an encoder-decoder network starts with its start id, which is not part of the
    result.

    Shape: input_ids and attention_mask (batch, length), result (batch, at most max_new_tokens).

    Args:
        network: A network with a language-model head.
        input_ids: The token ids of the texts, padded on the left if their lengths differ. The input
            of an encoder may be padded on either side.
        attention_mask: 1 for text and 0 for padding; by default there is no padding.
        max_new_tokens: Maximum number of new tokens.
        eos_token_id: Ids that end a text. The rest of the row is filled with the same id.

    Raises:
        InputError: The network does not predict the next token, or texts are empty or padded on
            the right.
    """
    return _continue(
        network,
        input_ids,
        attention_mask,
        lambda scores, _: scores.argmax(-1),
        max_new_tokens=max_new_tokens,
        eos_token_id=eos_token_id,
    )


def sample(
    network: Network,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int,
    seeds: Sequence[int],
    eos_token_id: Collection[int] = (),
    sampling: Sampling | None = None,
    cache: Cache | None = None,
    vocab_size: int | None = None,
) -> Tensor:
    """Continue texts with sampled tokens.

    The random numbers of a row depend only on its seed, not on the rest of the batch.

    Shape: input_ids (batch, length), attention_mask (batch, cached and new tokens), result (seeds,
    at most max_new_tokens): all continuations of the first text, then those of the second, …

    Args:
        network: As in `greedy`.
        input_ids: As in `greedy`.
        attention_mask: As in `greedy`; with a cache, it also covers the cached tokens.
        max_new_tokens: As in `greedy`.
        seeds: The seed of each continuation, with the same number of seeds for each text. A text is
            read only once.
        eos_token_id: As in `greedy`.
        sampling: The sampling settings; by default from all tokens.
        cache: Keys and values of tokens before the texts, for a batch of the same size. Only for
            networks without an encoder.
        vocab_size: Sample only from this many ids, those of the tokenizer; by default from all.

    Raises:
        InputError: As for `greedy`; or the number of seeds is not a multiple of that of texts.
    """
    sampling = sampling or Sampling()
    copies, rest = divmod(len(seeds), max(1, len(input_ids)))
    if rest or not copies:
        raise InputError(
            f"{len(seeds)} seeds for {len(input_ids)} texts", hint="give each text as many"
        )
    randoms = [np.random.default_rng(seed) for seed in seeds]

    def choose(scores: Tensor, rows: Tensor) -> Tensor:
        uniform = [randoms[row].random() for row in rows.tolist()]
        return sampling.draw(scores, torch.tensor(uniform, device=scores.device))

    return _continue(
        network,
        input_ids,
        attention_mask,
        choose,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos_token_id,
        copies=copies,
        cache=cache,
        vocab_size=vocab_size,
    )


@torch.inference_mode()
def _continue(
    network: Network,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    choose: _Choose,
    *,
    max_new_tokens: int,
    eos_token_id: Collection[int],
    copies: int = 1,
    cache: Cache | None = None,
    vocab_size: int | None = None,
) -> Tensor:
    """Continue each text `copies` times, reading it once. Rows that have ended are dropped."""
    decoding = Decoding(network, input_ids, attention_mask, cache=cache, vocab_size=vocab_size)
    stops = torch.tensor(sorted(eos_token_id), dtype=torch.long, device=input_ids.device)
    rows = torch.arange(len(input_ids) * copies, device=input_ids.device)
    live = torch.ones_like(rows, dtype=torch.bool)
    result = torch.zeros(len(rows), max_new_tokens, dtype=torch.long, device=input_ids.device)
    token = rows
    for place in range(max_new_tokens):
        scores = decoding.step(token) if place else decoding.start()
        if place == 0 and copies > 1:
            decoding.select(rows // copies)
            scores = scores[rows // copies]
        token = choose(scores, rows)
        result[rows[live], place] = token[live]
        ended = live & torch.isin(token, stops)
        result[rows[ended], place:] = token[ended, None]
        live &= ~ended
        count = int(live.sum())
        if not count:
            return result[:, : place + 1]
        if 2 * count <= len(live):  # copying the cache costs about as much as a step
            alive = live.nonzero()[:, 0]
            decoding.select(alive)
            rows, token, live = rows[alive], token[alive], live[alive]
    return result
