"""`Network`: the interface of every network architecture.

`LanguageModel`, the training loop, `Encoder`, `extend` and generation use networks only through
this class, so they work with any architecture that implements it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.basic import can_inspect
from idiolect.nn.embedding import ExtendedEmbedding, ExtendedRows, QuantizedEmbedding
from idiolect.nn.heads import LanguageHead
from idiolect.nn.paging.paged_cache import PagedCache
from idiolect.nn.quantized_matrix import QuantizedMatrix

__all__ = ["Network", "NetworkKind", "Output", "check_range", "copy_module"]

_M = TypeVar("_M", bound=nn.Module)

NetworkKind = Literal["causal", "bidirectional", "encoder-decoder"]
"""How tokens attend: to earlier tokens only, to the whole text, or as an encoder-decoder."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """The result of a forward pass."""

    hidden_states: Tensor
    """The last hidden states; zero at padding if the batch was packed. (batch, length, width)."""
    logits: Tensor | None = None
    """Output of the first task's head, in that head's shape."""
    pooled: Tensor | None = None
    """One vector per text, if the configuration sets `pool`. (batch, width)."""
    next_sentence: Tensor | None = None
    """Scores of BERT's next-sentence head, if there is one. (batch, 2)."""
    encoder_hidden_states: Tensor | None = None
    """The encoder's hidden states in an encoder-decoder network. (batch, length, width)."""
    penalty: Tensor | None = None
    """In training, a regularisation term to add to the mean loss per token."""
    attentions: Tensor | None = None
    """Attention weights of each target token over the source, if the network has one alignment.
    (batch, target length, source length)."""
    choice_log_probs: Tensor | None = None
    """Log-probability of each sampled choice, for REINFORCE. (batch, target length)."""


class Network(nn.Module, ABC):
    """A trainable network over token ids.

    Subclasses set `config`, `tokens` and `num_attention_heads`, and implement the abstract members.

    Attributes:
        config: A frozen dataclass with at least `vocab_size`, `hidden_size` and `pad_token_id`.
        tokens: The token embedding: one row per id.
        heads: The task heads by name; the head that scores the vocabulary is `language`.
        context_free: Whether a token's state does not depend on the tokens around it.
        carries_state: Whether the cache is a state of fixed size, which training may carry from one
            segment of a text to the next (truncated backpropagation through time).
        has_own_logits: Whether the logits are not just the language-model head applied to the
            hidden states, but for example a mixture with copies of the source. Then use
            `Output.logits`.
        packs_texts: Whether several texts may share a row, numbered by the mask.

    During training, `attached` holds modules that an objective needs and that are not part of the
    model, such as a decoder; see `attach`.
    """

    config: Any
    tokens: nn.Embedding | ExtendedEmbedding | QuantizedEmbedding
    heads: nn.ModuleDict
    context_free: bool = False
    carries_state: bool = False
    has_own_logits: bool = False
    packs_texts: bool = True

    @property
    @abstractmethod
    def kind(self) -> NetworkKind:
        """How the network reads a text."""

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The repeated layers, in order: the units that are compiled and sharded."""

    @property
    @abstractmethod
    def head_modules(self) -> list[nn.Module]:
        """The modules on top of the hidden states; text vectors do not depend on them."""

    @property
    @abstractmethod
    def has_dropout(self) -> bool:
        """Whether two forward passes over the same text in training may differ."""

    @abstractmethod
    def init_weights(self, seed: int) -> None:
        """Initialize all weights, reproducibly for a seed."""

    @abstractmethod
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, return_logits: bool = True
    ) -> Output:
        """Run a batch through the network.

        Shape: input_ids and attention_mask (batch, length).

        Args:
            input_ids: The token ids of the texts.
            attention_mask: 0 for padding and 1 for text, or the ascending numbers of several
                documents packed in a row.
            return_logits: Whether to compute the outputs of the task heads.
        """

    @abstractmethod
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

    def mean_states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return the mean state of each text of a context-free network, without a padded batch.

        Shape: result (texts, width).

        Raises:
            InputError: States depend on the context.
        """
        raise InputError("this network's states depend on the context", hint="use text_states")

    def first_layers(self, count: int) -> Network:
        """Return a network of the first layers only, which shares its weights with this one.

        The norm after the last layer, if there is one, then follows layer `count`.

        Raises:
            InputError: The network cannot be truncated, or does not have that many layers.
        """
        raise InputError("this network cannot be cut after a layer", hint="use all of it")

    def new_cache(self) -> Any:
        """Return an empty cache for generation, which `forward(cache=...)` reads and fills.

        Raises:
            InputError: The network cannot generate text.
        """
        raise InputError("this network generates no text", hint="load a decoder")

    def new_paged_cache(self, page_size: int) -> PagedCache | None:
        """Return an empty paged cache; None (the default) if the network does not support one.

        Args:
            page_size: Tokens per page.
        """
        return None

    def start_ids(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the first ids of the decoder's input. Shape: (batch, 1).

        Raises:
            InputError: The network is no encoder-decoder.
        """
        raise InputError("this network has no decoder behind an encoder", hint="continue the text")

    def shift_right(self, target_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the decoder input for predicting `target_ids`: these ids shifted right by one.

        Shape: (batch, length), all three.

        Raises:
            InputError: The network is no encoder-decoder.
        """
        return torch.cat([self.start_ids(target_ids, attention_mask), target_ids[:, :-1]], dim=1)

    def extra_loss(self, output: Output, labels: Tensor, predicted: Tensor) -> Tensor:
        """Return a term to add to the summed loss of the predictions; by default zero.

        Shape: labels and predicted (batch, target length), result a scalar.

        Args:
            output: A forward pass in training.
            labels: The target id of each position.
            predicted: Mask of the positions that have a label.
        """
        return output.hidden_states.new_zeros(())

    @property
    def padding_row(self) -> int | None:
        """Row of the padding id; None if the id is also the decoder's start id, as in T5."""
        padding: int | None = self.config.pad_token_id
        is_start = padding == getattr(self.config, "decoder_start_token_id", None)
        return None if is_start else padding

    @torch.no_grad()
    def clear_padding_row(self) -> None:
        """Set the embedding of the padding id, which receives no gradient, to zero."""
        rows = self.tokens.weight
        if self.padding_row is not None and isinstance(rows, Tensor):
            rows[self.padding_row].zero_()

    def check_ids(self, input_ids: Tensor) -> None:
        """Check that a tensor is a batch of ids with rows in this network's embedding.

        Raises:
            InputError: It is not a two-dimensional tensor of integers, or an id has no row.
        """
        if input_ids.dim() != 2 or input_ids.is_floating_point():
            raise InputError(
                f"input_ids have the shape {tuple(input_ids.shape)} and dtype {input_ids.dtype}",
                hint="pass integers of the shape (batch, length)",
            )
        check_range("id", input_ids, self.config.vocab_size)

    @property
    def virtual_tokens(self) -> int:
        """Number of positions that virtual tokens occupy in each text; see `idiolect.nn.prompt`."""
        return 0

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    def has_language_head(self) -> bool:
        """Whether the network can score its vocabulary."""
        return "language" in self.heads

    @property
    def language_head(self) -> LanguageHead:
        """The head that scores the vocabulary.

        Raises:
            InputError: The network has none.
        """
        if not self.has_language_head:
            raise InputError(
                "this network has no language-model head",
                hint="load a class that has one, such as ...ForCausalLM or ...ForMaskedLM",
            )
        head = self.heads["language"]
        assert isinstance(head, LanguageHead)
        return head

    def score_vocabulary(self, hidden: Tensor) -> Tensor:
        """Apply the language-model head. Shape: (…, width) to (…, vocabulary)."""
        logits: Tensor = self.language_head(hidden, self.tokens.weight)
        return logits

    def vocabulary_rows(self) -> dict[str, Tensor | ExtendedRows | QuantizedMatrix]:
        """Return, by name, each tensor with one entry per id: embedding, head, head bias."""
        rows: dict[str, Tensor | ExtendedRows | QuantizedMatrix] = {
            "tokens.weight": self.tokens.weight
        }
        if self.has_language_head:
            head = self.language_head
            if head.weight is not None:
                rows["heads.language.weight"] = head.weight
            if head.bias is not None:
                rows["heads.language.bias"] = head.bias
        return rows

    def add_rows(self, first_id: int, added: Mapping[str, Tensor]) -> None:
        """Add rows for the ids from `first_id` on, and freeze the original ones.

        Rows that were added before are kept and stay trainable.

        Args:
            first_id: The first new id; at most the number of existing rows.
            added: The new rows, for each name in `vocabulary_rows`. Shape: (N, width) or (N,).

        Raises:
            InputError: A name is missing or unknown, or rows have the wrong shape.
        """
        old = self.vocabulary_rows()
        if set(added) != set(old):
            raise InputError(
                f"new rows for {', '.join(sorted(added))}",
                hint=f"pass them for {', '.join(sorted(old))}",
            )
        for name, rows in old.items():
            if isinstance(rows, ExtendedRows):
                kept = rows.added[: first_id - rows.first_id]
                extended = ExtendedRows(
                    rows.original, torch.cat([kept, added[name]]), first_id=rows.first_id
                )
            else:
                extended = ExtendedRows(rows, added[name], first_id=first_id)
            if name == "tokens.weight":
                self.tokens = ExtendedEmbedding(extended, padding_idx=self.padding_row)
            else:
                head, tensor = self.language_head, name.rpartition(".")[2]
                delattr(head, tensor)
                setattr(head, tensor, extended)
        self.config = replace(self.config, vocab_size=len(extended))

    @contextmanager
    def attach(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Train and checkpoint `modules` together with this network, until the context exits."""
        # Registered last, so that weights shared with the network keep the network's names.
        self.attached = nn.ModuleDict(dict(modules))
        try:
            yield
        finally:
            del self.attached


def check_range(name: str, ids: Tensor, size: int) -> None:
    """Check that ids have an embedding row; on an accelerator the kernels check this.

    Args:
        name: Name of the ids, for the message.
        ids: The ids, of any shape.
        size: The number of rows.

    Raises:
        InputError: An id has no row.
    """
    if not can_inspect(ids) or not ids.numel():
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise InputError(
            f"{name} {low if low < 0 else high} is outside the {size} embedding rows",
            hint="use the tokenizer of this network",
        )


def copy_module(module: _M) -> _M:
    """Return a shallow copy of a module: it shares the submodules, which can then be replaced."""
    twin = copy(module)
    twin._modules = dict(module._modules)
    return twin
