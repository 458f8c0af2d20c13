"""Heads that attend to one place: previous or next token, separators, the same token again.

A head's share of a pattern is the mean attention of a text's tokens to that place (Clark et al.
2019, 1906.04341). Each share is compared with that of uniform attention: the same weight for every
token that the head may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.tasks.probes.layer_states import states_by_layer

__all__ = ["PATTERNS", "AttentionPatterns", "attention_patterns"]

PATTERNS = ("previous", "next", "itself", "first", "separator", "same word")
"""The token before or after; the token itself; the first token of the row; special tokens after
the first and punctuation; other tokens with the same id."""


@dataclass(frozen=True)
class AttentionPatterns:
    """The shares of each head."""

    shares: NDArray[np.float64]
    """Attention to each pattern's place. (patterns, layers, heads)."""
    uniform: NDArray[np.float64]
    """The shares of uniform attention: the same weight for each visible token. (patterns,)."""

    def strongest(self, pattern: str) -> tuple[int, int, float]:
        """Return layer, head (both from 1) and share of the head with the largest share."""
        shares = self.shares[PATTERNS.index(pattern)]
        layer, head = np.unravel_index(int(shares.argmax()), shares.shape)
        return int(layer) + 1, int(head) + 1, float(shares[layer, head])


def attention_patterns(encoder: Encoder, texts: Sequence[str]) -> AttentionPatterns | None:
    """Measure where each head attends, over all tokens of some texts except special tokens.

    Args:
        encoder: The encoder.
        texts: The texts.

    Returns:
        The patterns; `None` for a network without attention.
    """
    rows = encoder.reader.read(list(texts), None, EncodingCounts())
    separators = _separators(encoder, rows)
    before, after = len(encoder.reader.template.before), len(encoder.reader.template.after)
    shares = uniform = None
    totals = torch.zeros(len(PATTERNS), dtype=torch.float64)
    for batch in states_by_layer(encoder, rows, attentions=True):
        length = batch.input_ids.shape[1]
        if not batch.attentions or length - before - after < 1:
            continue
        places = _places(batch.input_ids, torch.isin(batch.input_ids, separators))
        queries = slice(before, length - after)
        weights = torch.stack(batch.attentions, 1)[..., queries, :].double().cpu()
        flat = (weights.sum((0, 1, 2)) > 0).double()  # a decoder sees no later token
        even = flat / flat.sum(-1, keepdim=True)
        found = torch.stack(
            [torch.einsum("blhqk,bqk->lh", weights, p[:, queries].double()) for p in places]
        )
        expected = torch.stack(
            [torch.einsum("qk,bqk->", even, p[:, queries].double()) for p in places]
        )
        shares = found if shares is None else shares + found
        uniform = expected if uniform is None else uniform + expected
        # A token for which the place does not exist is not counted.
        totals += torch.stack([p[:, queries].any(-1).double().sum() for p in places])
    if shares is None or uniform is None:
        return None
    totals = totals.clamp(min=1)
    return AttentionPatterns((shares / totals[:, None, None]).numpy(), (uniform / totals).numpy())


def _places(ids: Tensor, separators: Tensor) -> list[Tensor]:
    """Return a mask for each pattern, in the order of `PATTERNS`. Each (texts, queries, keys)."""
    count, length = ids.shape
    own = torch.eye(length, dtype=torch.bool)
    before = torch.diag(torch.ones(max(length - 1, 0), dtype=torch.bool), -1)
    first = torch.zeros(length, length, dtype=torch.bool)
    first[:, 0] = True
    grids = [one.expand(count, -1, -1) for one in (before, before.T, own, first)]
    later = separators.clone()
    later[:, 0] = False
    same = (ids[:, :, None] == ids[:, None, :]) & ~own
    return [*grids, later[:, None, :].expand(-1, length, -1), same]


def _separators(encoder: Encoder, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the ids of special tokens and of punctuation that occur in the rows."""
    tokenizer = encoder.model.tokenizer
    special = set(tokenizer.special_tokens.values())
    used = sorted({id_ for row in rows for id_ in row})
    texts = [tokenizer.decode([id_]).strip() for id_ in used]
    return torch.tensor(
        [
            id_
            for id_, text in zip(used, texts, strict=True)
            if id_ in special or (text and not any(c.isalnum() for c in text))
        ],
        dtype=torch.long,
    )
