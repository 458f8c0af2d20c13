"""The one Transformer: embeddings, an encoder or a decoder or both, and heads.

Families differ only in their `TransformerConfig`. On a CPU, padding is removed before the layers
(see `stack_forward`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.basic import init_parameters
from idiolect.nn.cache import Cache
from idiolect.nn.config import TransformerConfig
from idiolect.nn.heads import Pooler, make_head
from idiolect.nn.network import Network, NetworkKind, Output, check_range, copy_module
from idiolect.nn.packing import last_ids
from idiolect.nn.paging.paged_cache import PagedCache
from idiolect.nn.prompt.prompted_stack import run_prompted
from idiolect.nn.prompt.virtual_tokens import VirtualTokens
from idiolect.nn.stack import Stack
from idiolect.nn.stack_forward import run_stack

__all__ = ["Transformer"]


class Transformer(Network):
    """A Transformer encoder, decoder or both, with task heads.

    Raises:
        InputError: Ids are outside the vocabulary, a text is longer than the learned positions, or
            a mask has the wrong shape.
    """

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=self.padding_row
        )
        self.types = (
            nn.Embedding(config.type_vocab_size, config.hidden_size)
            if config.type_vocab_size
            else None
        )
        self.languages = (
            nn.Embedding(config.num_languages, config.hidden_size) if config.num_languages else None
        )
        both = config.num_encoder_layers > 0 and config.num_decoder_layers > 0
        self.encoder = self.decoder = None
        if config.num_encoder_layers:
            self.encoder = Stack(
                config, layers=config.num_encoder_layers, causal=False, cross=False
            )
        if config.num_decoder_layers:
            self.decoder = Stack(config, layers=config.num_decoder_layers, causal=True, cross=both)
        self.prompt: VirtualTokens | None = None
        """Virtual tokens before every text, if any; see `idiolect.nn.prompt`."""
        self.pooler = None if config.pool == "none" else Pooler(config)
        self.heads = nn.ModuleDict({task: make_head(task, config) for task in config.tasks})

    @property
    def kind(self) -> NetworkKind:
        """Whether the network is causal, bidirectional or an encoder-decoder."""
        if self.encoder is None:
            return "causal"
        return "bidirectional" if self.decoder is None else "encoder-decoder"

    @property
    def blocks(self) -> list[nn.Module]:
        """All layers, those of the encoder first."""
        stacks = (self.encoder, self.decoder)
        return [layer for stack in stacks if stack is not None for layer in stack.layers]

    @property
    def head_modules(self) -> list[nn.Module]:
        """The task heads and the pooler."""
        return [self.heads] if self.pooler is None else [self.heads, self.pooler]

    @property
    def has_dropout(self) -> bool:
        """Whether any dropout rate is above zero."""
        config = self.config
        return bool(config.dropout or config.attention_dropout or config.activation_dropout)

    def init_weights(self, seed: int) -> None:
        """Initialize all weights as GPT-2's, reproducibly for a seed; see `init_parameters`."""
        init_parameters(self, self.config.num_encoder_layers + self.config.num_decoder_layers, seed)
        self.clear_padding_row()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        language_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        prefix_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        cache: Cache | PagedCache | None = None,
        return_logits: bool = True,
        bidirectional: bool = False,
    ) -> Output:
        """Run a batch through the network and its task heads.

        Shape: all ids and masks (batch, length), int32 or int64.

        Positions are counted from a text's first token, so padding on the left has no effect.
        (`transformers` counts from the row's first column in BERT, XLM, GPT-2 and BART.)

        Args:
            input_ids: The token ids; in an encoder-decoder network, the input of the encoder.
            attention_mask: 0 for padding and 1 for text, or ascending document numbers of several
                documents packed in a row, which then do not attend to one another. With a cache it
                also covers the cached tokens. By default there is no padding.
            token_type_ids: Segment of each token (BERT).
            language_ids: Language of each token (XLM).
            position_ids: Position of each token, by default counted from the first of its text.
                Only for networks without a score bias.
            prefix_mask: In a decoder without encoder, 1 for the first tokens of a text, to which
                all its tokens attend (a prefix language model).
            decoder_input_ids: The decoder's input; by default `input_ids`, shifted right by one.
            decoder_attention_mask: The mask of `decoder_input_ids`.
            cache: Keys and values of earlier tokens; `input_ids` then contains only new tokens.
            return_logits: Whether to compute the outputs of the task heads.
            bidirectional: Let the tokens of a decoder attend to later ones as well (LLM2Vec). An
                encoder always does.
        """
        if self.encoder is None or self.decoder is None:
            stack = self.encoder or self.decoder
            assert stack is not None
            if decoder_input_ids is not None:
                raise InputError(
                    "decoder_input_ids need an encoder-decoder network",
                    hint="omit decoder_input_ids",
                )
            causal = stack.causal and not bidirectional
            if cache is not None and not causal:
                raise InputError(
                    "bidirectional attention needs the whole text", hint="omit the cache"
                )
            hidden = self._run_stack(
                stack,
                input_ids,
                attention_mask,
                causal=causal,
                token_type_ids=token_type_ids,
                language_ids=language_ids,
                position_ids=position_ids,
                prefix_mask=prefix_mask,
                cache=cache,
            )
            return self._finish(
                hidden, input_ids, attention_mask, None, return_logits=return_logits
            )
        if position_ids is not None or prefix_mask is not None:
            raise InputError(
                "position_ids and prefix_mask need an encoder or a decoder alone", hint="omit them"
            )
        if bidirectional:
            raise InputError(
                "the decoder of an encoder-decoder network is causal", hint="omit bidirectional"
            )
        memory = None if cache is None else cache.memory
        if memory is None:
            memory = self._run_stack(
                self.encoder,
                input_ids,
                attention_mask,
                token_type_ids=token_type_ids,
                language_ids=language_ids,
            )
            if cache is not None:
                cache.memory = memory
        # A shifted text is pooled at the positions of its own tokens, as in BART and T5.
        pool_ids, pool_mask = (
            (input_ids, attention_mask)
            if decoder_input_ids is None
            else (decoder_input_ids, decoder_attention_mask)
        )
        if decoder_input_ids is None:
            decoder_input_ids, decoder_attention_mask = (
                self.shift_right(input_ids, attention_mask),
                attention_mask,
            )
        hidden = self._run_stack(
            self.decoder,
            decoder_input_ids,
            decoder_attention_mask,
            cache=cache,
            memory=memory,
            memory_mask=attention_mask,
        )
        return self._finish(hidden, pool_ids, pool_mask, memory, return_logits=return_logits)

    def text_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        bidirectional: bool = False,
    ) -> Tensor:
        """Return the hidden states that represent a text; those of the encoder if there is one.

        Shape: input_ids and attention_mask (batch, length), result (batch, length, width).

        Args:
            input_ids: The token ids of the texts.
            attention_mask: 0 for padding and 1 for text.
            bidirectional: Let the tokens of a causal network attend to later ones as well.
        """
        if self.encoder is not None:
            return self.encode(input_ids, attention_mask)
        output: Output = self(
            input_ids, attention_mask, return_logits=False, bidirectional=bidirectional
        )
        return output.hidden_states

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        token_type_ids: Tensor | None = None,
        language_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states of the encoder alone. Shape: (batch, length, width)."""
        if self.encoder is None:
            raise InputError("this network has no encoder", hint="call the network instead")
        return self._run_stack(
            self.encoder,
            input_ids,
            attention_mask,
            token_type_ids=token_type_ids,
            language_ids=language_ids,
        )

    def decode(
        self, decoder: Stack, input_ids: Tensor, attention_mask: Tensor | None, *, memory: Tensor
    ) -> Tensor:
        """Return the hidden states of a decoder with this network's embeddings and a memory.

        Shape: input_ids (batch, length), memory (batch, any, width), result (batch, length, width).
        """
        return self._run_stack(decoder, input_ids, attention_mask, memory=memory)

    def first_layers(self, count: int) -> Transformer:
        """Return a Transformer of the first layers only, which shares its weights with this one.

        Raises:
            InputError: The network is an encoder-decoder, or does not have that many layers.
        """
        stack = self.encoder or self.decoder
        if stack is None or self.kind == "encoder-decoder":
            raise InputError("an encoder-decoder cannot be cut after a layer", hint="use all of it")
        if not 1 <= count <= len(stack.layers):
            raise InputError(
                f"{count} layers; the network has {len(stack.layers)}",
                hint=f"choose 1 to {len(stack.layers)}",
            )
        shallow, cut = copy_module(self), copy_module(stack)
        cut.layers = nn.ModuleList(list(stack.layers)[:count])
        if self.encoder is not None:
            shallow.encoder, config = cut, replace(self.config, num_encoder_layers=count)
        else:
            shallow.decoder, config = cut, replace(self.config, num_decoder_layers=count)
        shallow.config = config
        return shallow

    def new_cache(self) -> Cache:
        """Return an empty cache of keys and values."""
        return Cache()

    def new_paged_cache(self, page_size: int) -> PagedCache | None:
        """Return an empty paged cache; None unless the network is a decoder that supports it."""
        # Shaw's positions add a vector to each pair of a query and a key.
        other = self.kind != "causal" or self.prompt is not None or self.config.position == "shaw"
        return None if other else PagedCache(page_size)

    def start_ids(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the first ids of the decoder's input. Shape: (batch, 1)."""
        if self.config.decoder_start_token_id is not None:
            return input_ids.new_full((len(input_ids), 1), self.config.decoder_start_token_id)
        return last_ids(input_ids, attention_mask)

    def shift_right(self, target_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the decoder input for predicting `target_ids`. Shape: (batch, length)."""
        if not self.config.shift_last:
            return super().shift_right(target_ids, attention_mask)
        return torch.cat([last_ids(target_ids, attention_mask), target_ids[:, :-1]], dim=1)

    def _embed(
        self, input_ids: Tensor, token_type_ids: Tensor | None, language_ids: Tensor | None
    ) -> Tensor:
        x = self.scaled_rows(input_ids)
        for name, table, indices in (
            ("type", self.types, token_type_ids),
            ("language", self.languages, language_ids),
        ):
            if indices is not None:
                if table is None:
                    raise InputError(f"this network has no {name} embedding")
                if indices.shape != input_ids.shape:
                    raise InputError(
                        f"{name}s {tuple(indices.shape)} for ids {tuple(input_ids.shape)}"
                    )
                check_range(name, indices, table.num_embeddings)
                x = x + table(indices)
        if token_type_ids is None and (shift := self.embedding_shift) is not None:
            x = x + shift
        return x

    def scaled_rows(self, input_ids: Tensor) -> Tensor:
        """Return the scaled embeddings of ids, as the layers read them. (…, width)."""
        x: Tensor = self.tokens(input_ids)
        if self.config.embedding_scale != 1.0:
            # The scale is rounded to the dtype, as in the pre-training of Gemma.
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype)
        return x

    @property
    def embedding_shift(self) -> Tensor | None:
        """The segment embedding added to every token by default; None without one. (width,)."""
        return None if self.types is None else self.types.weight[0]

    @property
    def virtual_tokens(self) -> int:
        """Number of positions that virtual tokens occupy in each text."""
        return 0 if self.prompt is None else self.prompt.count

    def _run_stack(
        self,
        stack: Stack,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        *,
        causal: bool | None = None,
        token_type_ids: Tensor | None = None,
        language_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        prefix_mask: Tensor | None = None,
        cache: Cache | PagedCache | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        self._check(input_ids, attention_mask, cache.length if cache is not None else 0)
        x = self._embed(input_ids, token_type_ids, language_ids)
        causal = stack.causal if causal is None else causal
        if self.prompt is not None and not isinstance(cache, PagedCache):
            if position_ids is not None or prefix_mask is not None:
                raise InputError(
                    "position_ids and prefix_mask do not count virtual tokens",
                    hint="omit them, or train the prompt with another objective",
                )
            return run_prompted(
                stack,
                self.prompt,
                x,
                attention_mask,
                causal=causal,
                cache=cache,
                shift=self.embedding_shift,
            )
        return run_stack(
            stack,
            x,
            attention_mask,
            causal=causal,
            position_ids=position_ids,
            prefix_mask=prefix_mask,
            cache=cache,
            memory=memory,
            memory_mask=memory_mask,
        )

    def _check(self, input_ids: Tensor, attention_mask: Tensor | None, past: int) -> None:
        self.check_ids(input_ids)
        shape = (len(input_ids), past + input_ids.shape[1])
        if attention_mask is not None and attention_mask.shape != shape:
            raise InputError(
                f"the mask has the shape {tuple(attention_mask.shape)}",
                hint=f"it must be {shape}: cached and new tokens",
            )

    def _finish(
        self,
        hidden: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        memory: Tensor | None,
        *,
        return_logits: bool,
    ) -> Output:
        if not return_logits:
            return Output(hidden_states=hidden, encoder_hidden_states=memory)
        if attention_mask is not None:
            attention_mask = attention_mask[:, -hidden.shape[1] :]
        pooled = None if self.pooler is None else self.pooler(hidden, input_ids, attention_mask)
        scores = [self._score(task, hidden, pooled) for task in self.config.tasks]
        extra = dict(zip(self.config.tasks[1:], scores[1:], strict=True))
        return Output(
            hidden_states=hidden,
            logits=scores[0] if scores else None,
            pooled=pooled,
            next_sentence=extra.get("next_sentence"),
            encoder_hidden_states=memory,
        )

    def _score(self, task: str, hidden: Tensor, pooled: Tensor | None) -> Tensor:
        if task == "language":
            return self.score_vocabulary(hidden)
        scores: Tensor = self.heads[task](hidden if task in ("token", "span") else pooled)
        return scores
