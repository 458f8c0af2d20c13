"""Beam search for encoder-decoders: keep the likeliest beginnings of each target.

A hypothesis is scored by its log-probability divided by length^penalty, so the search must not end
with the first one that ends: it ends when as many as there are beams have ended, and none that goes
on is better than the worst of these (as in `transformers`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.nn.network import Network

__all__ = ["Hypotheses", "beam_search"]


@dataclass(frozen=True)
class Hypotheses:
    """The best target of each text."""

    token_ids: Tensor
    """(texts, longest), filled with the first end id."""
    scores: Tensor
    """Log-probability / length^penalty, the end token counted. (texts,)."""


@torch.inference_mode()
def beam_search(
    network: Network,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    num_beams: int,
    max_new_tokens: int,
    eos_token_id: Collection[int],
    length_penalty: float = 1.0,
) -> Hypotheses:
    """Search the likeliest target of each source.

    Shape: input_ids and attention_mask (texts, length).

    Args:
        network: An encoder-decoder with a language-model head.
        input_ids: The token ids of the sources, padded on either side.
        attention_mask: 1 for text and 0 for padding; by default there is no padding.
        num_beams: Beginnings that are kept of each text; 1 is greedy search.
        max_new_tokens: Maximum length of a target.
        eos_token_id: Ids that end a target.
        length_penalty: Exponent of the length by which a log-probability is divided: 0 prefers
            short targets, 1 compares means.

    Raises:
        ConfigError: No beams, no end, or no length.
        InputError: The network is no encoder-decoder.
    """
    if num_beams < 1 or max_new_tokens < 1 or not eos_token_id:
        raise ConfigError(
            f"num_beams is {num_beams}, max_new_tokens {max_new_tokens}, eos_token_id "
            f"{sorted(eos_token_id)}",
            hint="at least one of each",
        )
    if network.kind != "encoder-decoder" or not network.has_language_head:
        raise InputError("beam search is for encoder-decoders", hint="load such a model")
    search = _Search(network, input_ids, attention_mask, num_beams, max_new_tokens, length_penalty)
    stops = torch.tensor(sorted(eos_token_id), device=input_ids.device)
    for _ in range(max_new_tokens):
        search.advance(stops)
        if not len(search.texts):
            break
    return search.result(int(stops[0]))


class _Search:
    """The state of a search: what goes on, of the texts that are not done, and what has ended."""

    def __init__(
        self,
        network: Network,
        input_ids: Tensor,
        mask: Tensor | None,
        beams: int,
        longest: int,
        penalty: float,
    ) -> None:
        texts, device = len(input_ids), input_ids.device
        self.network, self.beams, self.longest, self.penalty = network, beams, longest, penalty
        self.texts = torch.arange(texts, device=device)
        """Numbers of the texts that are not done."""
        self.input_ids, self.mask = input_ids, mask
        self.cache = network.new_cache()
        self.step = network.start_ids(input_ids, mask)
        self.length = 0
        self.tokens = input_ids.new_zeros(texts, 1, longest)
        """What goes on: of one beam before the first step."""
        self.sums = torch.zeros(texts, 1, device=device)
        self.ended = input_ids.new_zeros(texts, beams, longest)
        """What has ended, by text, best first."""
        self.ended_scores = torch.full((texts, beams), float("-inf"), device=device)
        self.ended_lengths = input_ids.new_zeros(texts, beams)

    def advance(self, stops: Tensor) -> None:
        """Add a token to each beginning, and keep the best ones."""
        texts, width = self.sums.shape
        candidates, parents, tokens = self._candidates(2 * self.beams)
        self.length += 1
        ends = torch.isin(tokens, stops)
        self._keep_ended(candidates, parents, tokens, ends)
        # The best that go on, in the order of their scores.
        order = ends.long().argsort(dim=-1, stable=True)[:, : self.beams]
        parents, tokens = parents.gather(1, order), tokens.gather(1, order)
        # With few ids left, ends fill up the places; they must not go on.
        gone = ends.gather(1, order)
        self.sums = candidates.gather(1, order).masked_fill(gone, float("-inf"))
        rows = (torch.arange(texts, device=parents.device)[:, None] * width + parents).flatten()
        self.tokens = self.tokens.flatten(0, 1)[rows].view(*parents.shape, self.longest)
        self.tokens[:, :, self.length - 1] = tokens
        if self.length == self.longest:
            self._keep_unended()
            return
        self._continue(rows, width)
        self.step = self.tokens[:, :, self.length - 1].flatten()[:, None]

    def _candidates(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best next sums, the beams they continue and their tokens. (texts, count)."""
        network = self.network
        output = network(
            self.input_ids,
            self.mask,
            decoder_input_ids=self.step,
            cache=self.cache,
            return_logits=network.has_own_logits,
        )
        scores = (
            network.score_vocabulary(output.hidden_states[:, -1])
            if output.logits is None
            else output.logits[:, -1]
        ).float()
        count = min(count, scores.shape[-1])
        best, tokens = scores.topk(count)
        best = best - scores.logsumexp(-1, keepdim=True)
        texts, width = self.sums.shape
        sums = self.sums[..., None] + best.view(texts, width, count)
        top, places = sums.flatten(1).topk(count)
        return top, places // count, tokens.view(texts, -1).gather(1, places)

    def _keep_ended(self, sums: Tensor, parents: Tensor, tokens: Tensor, ends: Tensor) -> None:
        """Store those among the best that end here."""
        ends = ends[:, : self.beams]
        if not bool(ends.any()):
            return
        scores = (sums[:, : self.beams] / self.length**self.penalty).masked_fill(
            ~ends, float("-inf")
        )
        index = parents[:, : self.beams, None].expand(-1, -1, self.longest)
        found = self.tokens.gather(1, index)
        found[:, :, self.length - 1] = tokens[:, : self.beams]
        self._merge(scores, found)

    def _keep_unended(self) -> None:
        """Store what has reached the largest length."""
        self._merge(self.sums / self.length**self.penalty, self.tokens)
        self.texts = self.texts[:0]

    def _merge(self, scores: Tensor, found: Tensor) -> None:
        own = self.texts
        every = torch.cat([self.ended_scores[own], scores], 1)
        best, places = every.topk(self.beams)
        lengths = torch.cat(
            [self.ended_lengths[own], torch.full_like(found[:, :, 0], self.length)], 1
        )
        together = torch.cat([self.ended[own], found], 1)
        self.ended_scores[own] = best
        self.ended_lengths[own] = lengths.gather(1, places)
        self.ended[own] = together.gather(1, places[..., None].expand(-1, -1, self.longest))

    def _continue(self, rows: Tensor, width: int) -> None:
        """Reorder the caches; drop the texts that are done."""
        attainable = self.sums[:, 0] / self.length**self.penalty
        done = self.ended_scores[self.texts, -1] >= attainable
        going = (~done).nonzero()[:, 0]
        if width == self.beams and len(going) > len(done) // 2:
            # Copying a whole cache costs about as much as a step, so texts leave in groups.
            # Those that stay meanwhile must not change, whatever else is in the batch.
            going = torch.arange(len(done), device=rows.device)
            self.sums = self.sums.masked_fill(done[:, None], float("-inf"))
        if not bool((~done).any()):
            self.texts = self.texts[:0]
            return
        if len(going) < len(done) or width != self.beams:
            rows = rows.view(len(done), -1)[going].flatten()
            self.cache.select_beams(rows, going if len(going) < len(done) else None)
            self.texts, self.sums, self.tokens = (
                self.texts[going],
                self.sums[going],
                self.tokens[going],
            )
            self.input_ids = self.input_ids[going]
            self.mask = None if self.mask is None else self.mask[going]
        else:
            self.cache.select_beams(rows)

    def result(self, fill: int) -> Hypotheses:
        """Return the best of each text."""
        lengths = self.ended_lengths[:, 0]
        longest = int(lengths.max()) if len(lengths) else 0
        tokens = self.ended[:, 0, :longest]
        past = torch.arange(longest, device=tokens.device) >= lengths[:, None]
        return Hypotheses(tokens.masked_fill(past, fill), self.ended_scores[:, 0])
