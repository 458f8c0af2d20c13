"""`StaticNetwork`: one vector per token, whatever the tokens around it.

A text's vector is the mean of its tokens' rows, each times the token's weight. There are no layers,
so millions of tokens a second are read on a CPU and texts may have any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from idiolect.nn.network import Network, NetworkKind, Output

__all__ = ["StaticNetwork", "TokenWeights"]


class _OccurringRows(torch.autograd.Function):
    """A lookup of distinct rows whose gradient is sparse: other rows take no memory and no time."""

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
            distinct[None], grad, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None


class TokenWeights(nn.Module):
    """A factor for each token's row. Shape: (vocabulary,)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.ones(count))


class StaticNetwork(Network):
    """A table of rows and a table of weights.

    The table is the network's own: it is no vocabulary that could be extended, and trains whole.
    """

    tokens: nn.Embedding
    kind: NetworkKind = "bidirectional"
    has_dropout = False
    context_free = True

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_weights = TokenWeights(config.vocab_size)
        self.heads = nn.ModuleDict()

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
            self.tokens.weight.normal_(std=0.02)
            self.token_weights.values.fill_(1.0)

    def vocabulary_rows(self) -> dict[str, Any]:
        """There are no rows to keep: the whole table trains."""
        return {}

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
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        ids = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long, device=self.device)
        starts = (lengths.cumsum(0) - lengths).to(self.device)
        table = self.tokens.weight
        assert isinstance(table, Tensor)
        places = ids
        if table.requires_grad and torch.is_grad_enabled():
            distinct, places = torch.unique(ids, return_inverse=True)
            table = _OccurringRows.apply(table, distinct)  # type: ignore[no-untyped-call]
        # `embedding_bag` weighs rows only when it sums them.
        sums = F.embedding_bag(
            places, table, starts, mode="sum", per_sample_weights=self.token_weights.values[ids]
        )
        return sums / lengths.clamp(min=1)[:, None].to(sums)
