"""`StaticNetwork`: one vector per token, independent of the context.

A text's vector is the mean of its tokens' rows, each multiplied by the token's weight. There are no
layers, so a CPU processes millions of tokens a second and texts may have any length.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from idiolect.nn.embedding import ExtendedEmbedding, ExtendedRows
from idiolect.nn.network import Network, NetworkKind, Output
from idiolect.nn.quantized_matrix import QuantizedMatrix

__all__ = ["StaticNetwork", "TokenWeights"]


class _OccurringRows(torch.autograd.Function):
    """A lookup of distinct rows with a sparse gradient: other rows take no memory and no time."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, distinct: Tensor) -> Tensor:
        ctx.save_for_backward(distinct)
        ctx.shape = table.shape
        return table.index_select(0, distinct)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (distinct,) = ctx.saved_tensors
        sparse = torch.sparse_coo_tensor(
            distinct.long()[None], grad, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None


@dataclass(frozen=True)
class _Occurrences:
    """The occurrences of distinct tokens in some texts, ordered by text and ordered by token.

    The forward pass sums over the first order and the backward pass over the second, so both use
    the same fast operation.
    """

    distinct: Tensor
    """The ids that occur, in increasing order. (distinct,)."""
    tokens: Tensor
    """Index in `distinct` of each token, text by text. (tokens,)."""
    text_starts: Tensor
    """Start of each text in `tokens`. (texts,)."""
    texts: Tensor
    """The text of each token, ordered by id. (tokens,)."""
    token_starts: Tensor
    """Start of each id in `texts`. (distinct,)."""

    @classmethod
    def of(cls, ids: Tensor, lengths: Tensor, starts: Tensor) -> Self:
        """Sort the ids of all texts. Shape: ids (tokens,), lengths and starts (texts,)."""
        ordered, order = ids.sort(stable=True)
        distinct, places, counts = torch.unique_consecutive(
            ordered, return_inverse=True, return_counts=True
        )
        tokens = torch.empty_like(places)
        tokens[order] = places
        texts = torch.arange(len(lengths), device=ids.device).repeat_interleave(lengths)
        return cls(distinct, tokens, starts.long(), texts[order], counts.cumsum(0) - counts)


class _Sums(torch.autograd.Function):
    """The sum of each text's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, where: _Occurrences) -> Tensor:
        ctx.where = where
        return F.embedding_bag(where.tokens, rows, where.text_starts, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        where: _Occurrences = ctx.where
        rows = F.embedding_bag(where.texts, grad.contiguous(), where.token_starts, mode="sum")
        return rows, None


class TokenWeights(nn.Module):
    """A factor for each token's row. Shape: (vocabulary,)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.ones(count))


class StaticNetwork(Network):
    """A table of rows and a table of weights.

    The table belongs to the network and is not an extendable vocabulary. All of it is trained,
    unless `keeps_rows` is set.
    """

    tokens: nn.Embedding | ExtendedEmbedding
    kind: NetworkKind = "bidirectional"
    has_dropout = False
    context_free = True

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_weights = TokenWeights(config.vocab_size)
        self.heads = nn.ModuleDict()
        self.keeps_rows = False
        """Whether the rows are those of a language model and stay frozen."""

    @property
    def blocks(self) -> list[nn.Module]:
        """There are no layers."""
        return []

    @property
    def head_modules(self) -> list[nn.Module]:
        """There are no heads."""
        return []

    def init_weights(self, seed: int) -> None:
        """Initialize the rows, reproducibly for a seed."""
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(seed)
            table = self.tokens.weight
            assert isinstance(table, Tensor)
            table.normal_(std=0.02)
            self.token_weights.values.fill_(1.0)

    def vocabulary_rows(self) -> dict[str, Tensor | ExtendedRows | QuantizedMatrix]:
        """Return the table if its rows stay frozen; otherwise nothing, since all rows train."""
        return super().vocabulary_rows() if self.keeps_rows else {}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, return_logits: bool = True
    ) -> Output:
        """Look up the weighted rows; see `Network.forward`."""
        rows: Tensor = self.tokens(input_ids)
        return Output(hidden_states=rows * self.token_weights.values[input_ids][..., None])

    def text_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        bidirectional: bool = False,
    ) -> Tensor:
        """Look up the weighted rows; see `Network.text_states`."""
        return self.forward(input_ids, attention_mask).hidden_states

    def mean_states(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return the mean of each text's weighted rows; zero for an empty text.

        Shape: result (texts, width).
        """
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int, device=self.device)
        ids = _joined(rows).to(self.device)
        starts = lengths.cumsum(0, dtype=torch.int) - lengths
        table, weights = self.tokens.weight, self.token_weights.values
        if torch.is_grad_enabled() or not isinstance(table, Tensor):
            where = _Occurrences.of(ids, lengths, starts)
            own = self._rows(where.distinct)
            own = own * weights.index_select(0, where.distinct)[:, None]
            sums: Tensor = _Sums.apply(own, where)  # type: ignore[no-untyped-call]
        else:
            # `embedding_bag` supports weights only with sums.
            sums = F.embedding_bag(ids, table, starts, mode="sum", per_sample_weights=weights[ids])
        return sums / lengths.clamp(min=1)[:, None].to(sums)

    def _rows(self, distinct: Tensor) -> Tensor:
        """Look up distinct rows. Shape: (distinct,) to (distinct, width)."""
        table = self.tokens.weight
        look_up: Callable[[Tensor], Tensor] = self.tokens
        if isinstance(table, Tensor) and table.requires_grad:
            look_up = partial(_OccurringRows.apply, table)
        return look_up(distinct)


def _joined(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the ids of all rows, one after another. Shape: (tokens,), int32."""
    ids = array("i")
    for row in rows:
        ids.extend(row)
    return torch.frombuffer(ids, dtype=torch.int) if ids else torch.empty(0, dtype=torch.int)
