"""Decoding strategies: greedy search and sampling."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.nn.cache import Cache
from idiolect.nn.network import Network

__all__ = ["Sampling", "greedy", "sample"]

_Choose = Callable[[Tensor, Tensor], Tensor]
"""Choose a token of each row. Scores (rows, vocabulary) and the rows' numbers to tokens (rows,)."""


@dataclass(frozen=True)
class Sampling:
    """From which tokens one is drawn.

    Raises:
        ConfigError: A value is out of its range.
    """

    temperature: float = 1.0
    """Scores are divided by this number; less than 1 makes likely tokens likelier."""
    top_k: int = 0
    """Draw from this many most likely tokens; 0 for all."""
    top_p: float = 1.0
    """Draw from the fewest tokens whose probabilities add up to this (nucleus sampling, Holtzman et
    al. 2020, 1904.09751)."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(
                f"a temperature of {self.temperature}", hint="it is positive; usual is 0.7 to 1"
            )
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}", hint="0 stands for all tokens")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}", hint="it is above 0 and at most 1")

    def draw(self, scores: Tensor, uniform: Tensor) -> Tensor:
        """Draw one token of each row.

        Shape: scores (rows, vocabulary), uniform (rows,), result (rows,).

        Args:
            scores: The logits.
            uniform: A random number from 0 to 1 for each row.
        """
        scores = scores.float() / self.temperature
        count = min(self.top_k, scores.shape[-1]) or scores.shape[-1]
        kept, tokens = scores.topk(count)
        shares = kept.softmax(-1)
        before = shares.cumsum(-1) - shares
        shares = shares * (before < self.top_p)  # the first is always kept
        reached = shares.cumsum(-1)
        place = (reached <= uniform[:, None] * reached[:, -1:]).sum(-1)
        # Rounding can carry a number close to 1 past the last token that was kept.
        last = (shares > 0).sum(-1) - 1
        return tokens.gather(1, torch.minimum(place, last)[:, None])[:, 0]


def greedy(
    network: Network,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int,
    eos_token_id: Collection[int] = (),
) -> Tensor:
    """Continue texts with the most likely token at each step.

    Shape: input_ids and attention_mask (batch, length), result (batch, at most max_new_tokens). The
        decoder of an
    encoder-decoder network starts with its start id, which is not part of the result.

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
) -> Tensor:
    """Continue texts with random tokens.

    A seed alone determines the random numbers of its row, whatever else is in the batch.

    Shape: input_ids (batch, length), attention_mask (batch, cached and new tokens), result (seeds,
    at most max_new_tokens): all continuations of the first text, then those of the second, …

    Args:
        network: As in `greedy`.
        input_ids: As in `greedy`.
        attention_mask: As in `greedy`; with a cache, it also covers the cached tokens.
        max_new_tokens: As in `greedy`.
        seeds: The seed of each continuation: the same number of them for each text, which is read
            only once.
        eos_token_id: As in `greedy`.
        sampling: From which tokens one is drawn; by default from all.
        cache: Keys and values of tokens before the texts, of a batch of the same size. Only for
            networks without an encoder.

    Raises:
        InputError: As for `greedy`; or the texts do not share the seeds equally.
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
) -> Tensor:
    """Continue each text `copies` times, reading it once. Rows that have ended are dropped."""
    has_encoder = network.kind == "encoder-decoder"
    _check(network, input_ids, None if has_encoder else attention_mask)
    cache = network.new_cache() if cache is None else cache
    stops = torch.tensor(sorted(eos_token_id), dtype=torch.long, device=input_ids.device)
    step = network.start_ids(input_ids, attention_mask) if has_encoder else input_ids
    rows = torch.arange(len(input_ids) * copies, device=input_ids.device)
    live = torch.ones_like(rows, dtype=torch.bool)
    result = torch.zeros(len(rows), max_new_tokens, dtype=torch.long, device=input_ids.device)
    for place in range(max_new_tokens):
        if has_encoder:
            output = network(
                input_ids,
                attention_mask,
                decoder_input_ids=step,
                cache=cache,
                return_logits=network.has_own_logits,
            )
        else:
            output = network(step, attention_mask, cache=cache, return_logits=False)
        scores = (
            network.score_vocabulary(output.hidden_states[:, -1])
            if output.logits is None
            else output.logits[:, -1]
        )
        if place == 0 and copies > 1:
            texts = rows // copies
            cache.select(texts)
            input_ids, scores = input_ids[texts], scores[texts]
            attention_mask = None if attention_mask is None else attention_mask[texts]
        if attention_mask is not None and not has_encoder:
            ones = attention_mask.new_ones(len(attention_mask), 1)
            attention_mask = torch.cat([attention_mask, ones], dim=1)
        token = choose(scores, rows)
        result[rows[live], place] = token[live]
        ended = live & torch.isin(token, stops)
        result[rows[ended], place:] = token[ended, None]
        live &= ~ended
        count = int(live.sum())
        if not count:
            return result[:, : place + 1]
        if 2 * count <= len(live):  # copying the caches costs about as much as a step
            alive = live.nonzero()[:, 0]
            cache.select(alive)
            rows, token, live, input_ids = rows[alive], token[alive], live[alive], input_ids[alive]
            attention_mask = None if attention_mask is None else attention_mask[alive]
        step = token[:, None]
    return result


def _check(network: Network, input_ids: Tensor, attention_mask: Tensor | None) -> None:
    if input_ids.shape[1] == 0:
        raise InputError("the text is empty", hint="start with the beginning-of-text token")
    if network.kind == "bidirectional" or not network.has_language_head:
        raise InputError(
            "this network does not predict the next token",
            hint="load a decoder with a language-model head",
        )
    if attention_mask is not None and not bool(attention_mask[:, -1].all()):
        raise InputError("texts to continue are padded on the right", hint="pad on the left")
