"""`Decoding`: a batch of texts that a network continues token by token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.generate.products.few_row_products import reads_few_rows
from idiolect.nn.network import Network

__all__ = ["Decoding"]


class Decoding:
    """A batch of texts that a network continues, with its cache, mask and last hidden states.

    It hides the differences between decoders, recurrent networks and encoder-decoders.

    Args:
        network: A network with a language-model head.
        input_ids: The texts, padded on the left if their lengths differ; the input of an encoder
            may be padded on either side. Shape: (batch, length).
        attention_mask: 1 for text and 0 for padding, over cached and new tokens; by default there
            is no padding.
        cache: The cache of tokens before the texts, for a batch of the same size.
        vocab_size: Score only this many ids. The rows of a network are often padded to a round
            number, and those without a token must not be generated.

    Raises:
        InputError: The network does not predict the next token, or texts are empty or padded on
            the right.
    """

    def __init__(
        self,
        network: Network,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        cache: Any = None,
        vocab_size: int | None = None,
    ) -> None:
        self.network, self._vocab_size = network, vocab_size
        self.has_encoder = network.kind == "encoder-decoder"
        _check(network, input_ids, None if self.has_encoder else attention_mask)
        if attention_mask is not None and bool((attention_mask == 1).all()):
            attention_mask = None
        self.cache = network.new_cache() if cache is None else cache
        self._source, self._mask = input_ids, attention_mask
        self._started = False
        self.hidden_states: Tensor = torch.empty(0)
        """The last hidden states that were computed. Shape: (rows, new tokens, width)."""
        self._logits: Tensor | None = None
        """The last scores, if the network computes its own logits; see `has_own_logits`."""
        self._keeps_attention = False
        self.attention: Tensor | None = None
        """Attention of each row's last token to its source; padding has the value 1, so that it
        counts as covered. Only after `keep_attention`. Shape: (rows, source length)."""

    def keep_attention(self) -> None:
        """Keep the attention of each step to the source: the mean over the last layer's heads.

        Raises:
            ConfigError: The network does not attend to a source.
        """
        if not self.has_encoder:
            raise ConfigError(
                "coverage_penalty counts what of a source text is covered, and this model has none",
                hint="use an encoder-decoder",
            )
        self._keeps_attention = True

    @reads_few_rows
    def start(self) -> Tensor:
        """Read the texts; return the scores of the first new token. Shape: (rows, vocabulary)."""
        first = (
            self.network.start_ids(self._source, self._mask) if self.has_encoder else self._source
        )
        self._read(first)
        return self._next_scores()

    def step(self, tokens: Tensor) -> Tensor:
        """Read a token of each row; score the next one. Shape: (rows,) to (rows, vocabulary)."""
        self.read(tokens[:, None])
        return self._next_scores()

    @reads_few_rows
    def read(self, ids: Tensor) -> Tensor:
        """Read new tokens; return their hidden states. Shape: (rows, n) to (rows, n, width)."""
        if self._mask is not None and not self.has_encoder:
            ones = self._mask.new_ones(len(self._mask), ids.shape[1])
            self._mask = torch.cat([self._mask, ones], dim=1)
        return self._read(ids)

    @reads_few_rows
    def score(self, hidden_states: Tensor) -> Tensor:
        """Score the vocabulary, in float32. Shape: (…, width) to (…, vocabulary)."""
        return self.network.score_vocabulary(hidden_states)[..., : self._vocab_size].float()

    @torch.inference_mode()
    def score_row(self, row: int) -> Tensor:
        """Score the next token of one row, which must have been read. Shape: (vocabulary,)."""
        if self._logits is not None:
            return self._logits[row, -1, : self._vocab_size].float()
        return self.score(self.hidden_states[row, -1])

    @torch.inference_mode()
    def select(self, rows: Tensor) -> None:
        """Keep the given rows, in the given order. Shape: (n,)."""
        self.cache.select(rows)
        self._source = self._source[rows]
        self.hidden_states = self.hidden_states[rows]
        if self._mask is not None:
            self._mask = self._mask[rows]
            self._drop_padding()

    @torch.inference_mode()
    def select_beams(self, rows: Tensor, texts: Tensor | None = None) -> None:
        """Keep the given rows, grouped by text, with the same number for each text.

        Encoder states have one row per text, which all its beams share.

        Shape: rows (beams,), texts (n,), int64.

        Args:
            rows: Row numbers of the beams.
            texts: Positions of the texts that continue; by default all.
        """
        if not self.has_encoder:
            self.select(rows)
            return
        self.cache.select_beams(rows, texts)
        self.hidden_states = self.hidden_states[rows]
        if texts is not None:
            self._source = self._source[texts]
            self._mask = None if self._mask is None else self._mask[texts]

    def _drop_padding(self) -> None:
        """Drop columns that are padding in all remaining rows."""
        if self.has_encoder or self._mask is None or not hasattr(self.cache, "drop_first"):
            return
        if bool(self._mask[:, 0].any()):
            return
        columns = int((self._mask > 0).any(0).int().argmax())
        self.cache.drop_first(columns)
        self._mask = self._mask[:, columns:]
        if bool((self._mask == 1).all()):
            self._mask = None

    def crop(self, length: int) -> None:
        """Truncate the decoder's cache to its first `length` tokens.

        Raises:
            InputError: The network has a recurrent state instead of a cache of tokens.
        """
        if not hasattr(self.cache, "crop"):
            raise InputError(
                "this network cannot take back what it has read", hint="generate without guesses"
            )
        self.cache.crop(length)
        if self._mask is not None and not self.has_encoder:
            self._mask = self._mask[:, :length]

    def _read(self, ids: Tensor) -> Tensor:
        own = self.network.has_own_logits
        if self.has_encoder:
            with self._watched() as weights:
                output = self.network(
                    self._source,
                    self._mask,
                    decoder_input_ids=ids,
                    cache=self.cache,
                    return_logits=own,
                )
            if self._keeps_attention:
                self._keep(output.attentions if output.attentions is not None else weights)
        else:
            output = self.network(ids, self._mask, cache=self.cache, return_logits=own)
        self.hidden_states, self._logits = output.hidden_states, output.logits
        return self.hidden_states

    @contextmanager
    def _watched(self) -> Iterator[list[Tensor]]:
        """Collect the last layer's cross-attention weights, if attention is kept."""
        weights: list[Tensor] = []
        last = self.network.blocks[-1:] if self._keeps_attention else []
        cross = getattr(last[0], "cross", None) if last else None
        if cross is not None:
            cross.observer = weights.append
        try:
            yield weights
        finally:
            if cross is not None:
                cross.observer = None

    def _keep(self, found: Tensor | list[Tensor]) -> None:
        if isinstance(found, list):
            if not found:
                raise ConfigError(
                    "this network does not attend to its source, so nothing counts what is covered",
                    hint="omit coverage_penalty",
                )
            # (texts, heads, beams, source), or (rows, heads, 1, source).
            found = found[0].mean(1).flatten(0, 1)[:, None]
        self.attention = found[:, -1].float()
        if self._mask is not None:
            beams = len(self.attention) // len(self._mask)
            padding = (self._mask == 0).repeat_interleave(beams, 0)
            self.attention = self.attention.masked_fill(padding, 1.0)

    @reads_few_rows
    def _next_scores(self) -> Tensor:
        if self._logits is not None:
            return self._logits[:, -1, : self._vocab_size].float()
        return self.score(self.hidden_states[:, -1])


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
