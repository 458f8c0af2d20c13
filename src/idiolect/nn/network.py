"""`Network`: what every network keeps, so that training, encoders and vocabularies need no more.

The Transformer is one; a recurrent network is another. `LanguageModel`, the training loop,
`Encoder`, `extend` and generation use a network through this class only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.embedding import ExtendedEmbedding, ExtendedRows
from idiolect.nn.heads import LanguageHead

__all__ = ["Network", "NetworkKind", "Output"]

NetworkKind = Literal["causal", "bidirectional", "encoder-decoder"]
"""How a network reads: from left to right, the whole text at once, or one text with the help of
another."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a forward pass returns."""

    hidden_states: Tensor
    """The last hidden states; zero at padding where a batch was packed. (batch, length, width)."""
    logits: Tensor | None = None
    """Scores of the first task's head, in the shape that head returns."""
    pooled: Tensor | None = None
    """One vector per text, where the configuration pools. (batch, width)."""
    next_sentence: Tensor | None = None
    """BERT's second head, where it is beside a language-model head. (batch, 2)."""
    encoder_hidden_states: Tensor | None = None
    """The encoder's hidden states, where a decoder read them. (batch, length, width)."""


class Network(nn.Module, ABC):
    """A trainable network over token ids.

    Subclasses set `config`, `tokens` and `num_attention_heads`, and implement the abstract members.

    Attributes:
        config: A frozen dataclass with at least `vocab_size`, `hidden_size` and `pad_token_id`.
        tokens: The token embedding: one row per id.
        heads: The task heads by name; the head that scores the vocabulary is `language`.

    During training, modules that an objective needs and that are no part of the model itself, such
    as a decoder, are in `attached`; see `attach`.
    """

    config: Any
    tokens: nn.Embedding | ExtendedEmbedding
    heads: nn.ModuleDict

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
        """The modules on top of the hidden states, which have no part in a text's vector."""

    @property
    @abstractmethod
    def has_dropout(self) -> bool:
        """Whether two training passes over one text may differ."""

    @abstractmethod
    def init_weights(self, seed: int) -> None:
        """Set every weight to its first value; the same seed sets the same values."""

    @abstractmethod
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, return_logits: bool = True
    ) -> Output:
        """Read a batch.

        Shape: ids and mask (batch, length).

        Args:
            input_ids: The texts.
            attention_mask: 0 for padding and 1 for text, or the ascending numbers of several
                documents packed in a row.
            return_logits: Whether to compute the heads' scores.
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

        Shape: ids and mask (batch, length), result (batch, length, width).

        Args:
            input_ids: The texts.
            attention_mask: 0 for padding and 1 for text.
            bidirectional: Let the tokens of a causal network see what follows as well.
        """

    def new_cache(self) -> Any:
        """Return an empty cache for generation: what `forward(cache=...)` reads and fills.

        Raises:
            InputError: The network generates no text.
        """
        raise InputError("this network generates no text", hint="load a decoder")

    def start_ids(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the first ids of the decoder's input. Shape: (batch, 1).

        Raises:
            InputError: The network is no encoder-decoder.
        """
        raise InputError("this network has no decoder behind an encoder", hint="continue the text")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
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

    def vocabulary_rows(self) -> dict[str, Tensor | ExtendedRows]:
        """Return, by name, each tensor with one entry per id: embedding, head, head bias."""
        rows: dict[str, Tensor | ExtendedRows] = {"tokens.weight": self.tokens.weight}
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
            InputError: A name is missing or unknown, or rows do not fit.
        """
        old = self.vocabulary_rows()
        if set(added) != set(old):
            raise InputError(f"new rows for {sorted(added)}", hint=f"give them for {sorted(old)}")
        for name, rows in old.items():
            if isinstance(rows, ExtendedRows):
                kept = rows.added[: first_id - rows.first_id]
                extended = ExtendedRows(
                    rows.original, torch.cat([kept, added[name]]), first_id=rows.first_id
                )
            else:
                extended = ExtendedRows(rows, added[name], first_id=first_id)
            if name == "tokens.weight":
                self.tokens = ExtendedEmbedding(extended, padding_idx=self.config.pad_token_id)
            else:
                head, tensor = self.language_head, name.rpartition(".")[2]
                delattr(head, tensor)
                setattr(head, tensor, extended)
        self.config = replace(self.config, vocab_size=len(extended))

    @contextmanager
    def attach(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Train and checkpoint `modules` together with this network, for as long as it lasts."""
        # Registered last, so that weights shared with the network keep the network's names.
        self.attached = nn.ModuleDict(dict(modules))
        try:
            yield
        finally:
            del self.attached
