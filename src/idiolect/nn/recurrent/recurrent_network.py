"""`RecurrentNetwork`: RNN, LSTM and GRU language models, and AWD-LSTM.

They differ only in their `RecurrentConfig`. A text is read from left to right into a state of fixed
size; a token's hidden state depends on it and all earlier tokens, and on no later ones. Padding on
either side is skipped, and documents packed in a row are independent.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.basic import drop, dropout_rate
from idiolect.nn.embedding import ExtendedEmbedding
from idiolect.nn.heads import make_head
from idiolect.nn.network import Network, NetworkKind, Output, copy_module
from idiolect.nn.recurrent.recurrent_cells import State
from idiolect.nn.recurrent.recurrent_config import RecurrentConfig
from idiolect.nn.recurrent.recurrent_layer import RecurrentLayer, Sequences
from idiolect.nn.recurrent.recurrent_state import RecurrentCache
from idiolect.nn.recurrent.vanishing_gradients import penalize_vanishing

__all__ = ["RecurrentNetwork"]


class RecurrentNetwork(Network):
    """Recurrent layers between an embedding and a language-model head.

    Raises:
        InputError: Ids are outside the vocabulary, the mask has another shape, or the state has
            another batch size.
    """

    config: RecurrentConfig
    tokens: nn.Embedding | ExtendedEmbedding
    kind: NetworkKind = "causal"
    carries_state = True

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(
            config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id
        )
        self.layers = nn.ModuleList(
            RecurrentLayer(
                config.cell, *config.layer_sizes(layer), weight_dropout=config.weight_dropout
            )
            for layer in range(config.num_layers)
        )
        self.heads = nn.ModuleDict({task: make_head(task, config.head) for task in config.tasks})

    @property
    def blocks(self) -> list[nn.Module]:
        """The recurrent layers."""
        return list(self.layers)

    @property
    def head_modules(self) -> list[nn.Module]:
        """The task heads."""
        return [self.heads]

    @property
    def has_dropout(self) -> bool:
        """Whether any dropout rate is above zero."""
        return self.config.has_dropout

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Initialize all weights, reproducibly for a seed.

        Embedding and head are uniform in ±0.1, layers are as in `RecurrentLayer`, biases are zero.
        """
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            for name, parameter in self.named_parameters():
                if not name.startswith("layers."):
                    parameter.uniform_(-0.1, 0.1) if parameter.dim() > 1 else parameter.zero_()
            for layer in self.layers:
                assert isinstance(layer, RecurrentLayer)
                layer.reset_parameters()
            self.clear_padding_row()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        cache: RecurrentCache | None = None,
        return_logits: bool = True,
    ) -> Output:
        """Run a batch through the network and its head; see `Network.forward`.

        Args:
            input_ids: The token ids; with a cache, those after the cached ones.
            attention_mask: 0 for padding and 1 for text, or ascending document numbers. With a
                cache it may also cover the tokens before.
            cache: The states after the earlier text; updated in place.
            return_logits: Whether to score the vocabulary.
        """
        raw, sequences = self._read(input_ids, attention_mask, cache)
        dropped = self._drop(raw, self.config.output_dropout, sequences)
        penalty = self._penalty(raw, dropped, sequences)
        hidden = dropped if sequences is None else sequences.unpack(dropped)
        scored = return_logits and self.has_language_head
        return Output(
            hidden_states=hidden,
            logits=self.score_vocabulary(hidden) if scored else None,
            penalty=penalty,
        )

    def text_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        bidirectional: bool = False,
    ) -> Tensor:
        """Return the last layer's states; see `Network.text_states`.

        Output dropout, which is meant for predicting tokens, is omitted (as in ULMFiT, 1801.06146):
        texts would differ more by their dropout masks than by their content.

        Raises:
            InputError: `bidirectional` is set.
        """
        if bidirectional:
            raise InputError(
                "a recurrent network reads from left to right only", hint="omit bidirectional"
            )
        raw, sequences = self._read(input_ids, attention_mask, None)
        return raw if sequences is None else sequences.unpack(raw)

    def first_layers(self, count: int) -> RecurrentNetwork:
        """Return a network of the first layers only, which shares its weights with this one.

        Raises:
            InputError: It does not have that many layers, or their size differs from the last's.
        """
        if not 1 <= count <= len(self.layers):
            raise InputError(
                f"{count} layers; the network has {len(self.layers)}",
                hint=f"choose 1 to {len(self.layers)}",
            )
        config = replace(self.config, num_layers=count)
        if self.config.layer_sizes(count - 1) != config.layer_sizes(count - 1):
            raise InputError(
                f"layer {count} has {self.config.inner_size} states and the last one "
                f"{self.config.hidden_size}, so the network cannot be cut there",
                hint="use all layers, or none",
            )
        shallow = copy_module(self)
        shallow.layers, shallow.config = nn.ModuleList(list(self.layers)[:count]), config
        return shallow

    def new_cache(self) -> RecurrentCache:
        """Return an empty cache, whose size does not grow with the text."""
        return RecurrentCache()

    def _read(
        self, input_ids: Tensor, attention_mask: Tensor | None, cache: RecurrentCache | None
    ) -> tuple[Tensor, Sequences | None]:
        """Return the last layer's states, and their packing if there is padding."""
        mask = self._check(input_ids, attention_mask, cache)
        if cache is not None and cache.states and len(cache.states[0][0]) != len(input_ids):
            raise InputError(
                f"the state is of {len(cache.states[0][0])} texts and the batch has "
                f"{len(input_ids)}",
                hint="pass the state of the same texts, or an empty cache",
            )
        x = self._embed(input_ids)
        sequences = None if mask is None else Sequences.of(mask)
        if sequences is not None:
            x = sequences.pack(x)
        x = self._drop(x, self.config.input_dropout, sequences)
        raw, states = self._run(x, cache, sequences, len(input_ids))
        if cache is not None:
            cache.states, cache.length = states, cache.length + input_ids.shape[1]
        return raw, sequences

    def _embed(self, input_ids: Tensor) -> Tensor:
        x: Tensor = self.tokens(input_ids)
        rate = dropout_rate(self.config.embedding_dropout, self.training)
        if not rate:
            return x
        rows = torch.empty(self.config.vocab_size, 1, dtype=x.dtype, device=x.device)
        return x * (rows.bernoulli_(1 - rate) / (1 - rate))[input_ids]

    def _drop(self, x: Tensor, rate: float, sequences: Sequences | None) -> Tensor:
        """Apply dropout, with one mask for each element or for each sequence."""
        rate = dropout_rate(rate, self.training)
        if not rate:
            return x
        if self.config.dropout_shape == "element":
            return drop(x, rate)
        if sequences is None:
            return x * drop(torch.ones_like(x[:, :1]), rate)
        return x * drop(x.new_ones(len(sequences.rows), x.shape[-1]), rate)[sequences.sequence]

    def _run(
        self, x: Tensor, cache: RecurrentCache | None, sequences: Sequences | None, batch: int
    ) -> tuple[Tensor, list[State]]:
        """Run the layers; return the last one's states and, for a cache, all final states."""
        states: list[State] = []
        omega = self.config.vanishing_penalty if self.training else 0.0
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, RecurrentLayer)
            whole = layer.first_state(batch)
            if cache is not None and cache.states:
                whole = cache.states[number]
            before = whole
            if sequences is not None:
                before = tuple(part[sequences.rows] for part in whole)
            if number:
                x = self._drop(x, self.config.hidden_dropout, sequences)
            x, after = layer(x, before, sequences)
            if omega and sequences is None:
                x = penalize_vanishing(layer, x, omega)
            if cache is not None:
                if sequences is not None:  # a row that contains only padding keeps its state
                    after = tuple(
                        old.index_copy(0, sequences.rows, new)
                        for old, new in zip(whole, after, strict=True)
                    )
                states.append(after)
        return x, states

    def _penalty(self, raw: Tensor, dropped: Tensor, sequences: Sequences | None) -> Tensor | None:
        """Return the weighted sum of AR and TAR in training; `None` if not used."""
        config = self.config
        alpha, beta = config.activation_regularization, config.temporal_activation_regularization
        if not self.training or torch.is_inference_mode_enabled() or not (alpha or beta):
            return None
        total = alpha * dropped.square().mean()
        if beta:
            if sequences is None:
                change = raw[:, 1:] - raw[:, :-1]
            else:
                # Packed step by step: a token's predecessor is n positions before it, where n is
                # the number of sequences at the previous step.
                back = torch.repeat_interleave(sequences.steps[:-1], sequences.steps[1:])
                later = torch.arange(int(sequences.steps[:1].sum()), len(raw))
                change = raw[later.to(raw.device)] - raw[(later - back).to(raw.device)]
            if change.numel():
                total = total + beta * change.square().mean()
        return total

    def _check(
        self, input_ids: Tensor, mask: Tensor | None, cache: RecurrentCache | None
    ) -> Tensor | None:
        """Check a batch; return the mask of the new tokens, or `None` if there is no padding."""
        self.check_ids(input_ids)
        if mask is None:
            return None
        length = input_ids.shape[1]
        past = 0 if cache is None else cache.length
        if len(mask) != len(input_ids) or mask.shape[1] not in (length, past + length):
            raise InputError(
                f"the mask has the shape {tuple(mask.shape)}",
                hint=f"it must be {(len(input_ids), past + length)}: cached and new tokens",
            )
        mask = mask[:, mask.shape[1] - length :]
        if cache is not None and bool((mask > 1).any()):
            raise InputError(
                "a cache continues one text a row, and the mask has several documents",
                hint="pass a mask of zeros and ones, or no cache",
            )
        return None if bool((mask == 1).all()) else mask
