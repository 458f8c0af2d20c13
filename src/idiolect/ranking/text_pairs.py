"""Input of a cross-encoder: two texts in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["PairTemplate", "TextPairBatch"]


@dataclass(frozen=True)
class PairTemplate:
    """The special tokens before, between and after two texts."""

    before: tuple[int, ...]
    """Ids before the first text."""
    between: tuple[int, ...]
    """Ids between them."""
    after: tuple[int, ...]
    """Ids after the second."""
    segments: tuple[int, int, int, int, int]
    """The token type of each part: before, first text, between, second text, after."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> PairTemplate:
        """Read the tokenizer's pair template. If it has no separator, use a line break."""
        a, b = (tokenizer.encode(text, add_special_tokens=False) for text in ("a", "b"))
        pair = tokenizer.engine.encode("a", "b")
        first = _find(pair.ids, a, 0)
        second = _find(pair.ids, b, first + len(a))
        end = second + len(b)
        types = pair.type_ids
        between = pair.ids[first + len(a) : second]
        if between:
            middle = types[first + len(a)]
        else:
            between, middle = tokenizer.encode("\n", add_special_tokens=False), types[first]
        return cls(
            tuple(pair.ids[:first]),
            tuple(between),
            tuple(pair.ids[end:]),
            (types[0], types[first], middle, types[second], types[-1]),
        )

    @property
    def size(self) -> int:
        """Number of added tokens."""
        return len(self.before) + len(self.between) + len(self.after)

    def join(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return ids and segment types of two joined texts."""
        parts = (self.before, first, self.between, second, self.after)
        ids = [id_ for part in parts for id_ in part]
        types = [kind for kind, part in zip(self.segments, parts, strict=True) for _ in part]
        return ids, types


@dataclass(frozen=True)
class TextPairBatch:
    """A padded batch of text pairs."""

    input_ids: Tensor
    """(pairs, longest), int64."""
    attention_mask: Tensor
    """1 for text, 0 for padding. (pairs, longest)."""
    token_type_ids: Tensor
    """The segment of each token. (pairs, longest)."""
    labels: Tensor
    """(pairs,)."""
    sizes: tuple[int, ...]
    """Number of pairs of each group."""

    @classmethod
    def of(
        cls,
        rows: Sequence[tuple[list[int], list[int]]],
        pad_id: int,
        labels: Sequence[float] = (),
        sizes: Sequence[int] = (),
    ) -> Self:
        """Pad rows of ids and segment types."""
        shape = (len(rows), max(len(ids) for ids, _ in rows))
        grids = np.full(shape, pad_id), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, (own, kinds) in enumerate(rows):
            for grid, values in zip(grids, (own, 1, kinds), strict=True):
                grid[row, : len(own)] = values
        ids, mask, types = map(torch.from_numpy, grids)
        return cls(ids, mask, types, torch.tensor(labels), tuple(sizes))

    def __len__(self) -> int:
        """Number of groups."""
        return len(self.sizes)

    @property
    def count(self) -> int:
        """Number of groups: the loss is a sum over them."""
        return len(self.sizes)

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int(self.attention_mask.sum())

    @property
    def _grids(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.input_ids, self.attention_mask, self.token_type_ids

    def part(self, rows: slice) -> Self:
        """Return a slice of the groups."""
        ends = np.cumsum((0, *self.sizes))
        first, last, _ = rows.indices(len(self.sizes))
        own = slice(int(ends[first]), int(ends[max(first, last)]))
        longest = int(self.attention_mask[own].sum(1).max()) if own.stop > own.start else 0
        ids, mask, types = (grid[own, :longest] for grid in self._grids)
        return type(self)(ids, mask, types, self.labels[own], self.sizes[rows])

    def to(self, device: torch.device) -> Self:
        """Move it to a device."""
        ids, mask, types = (grid.to(device) for grid in self._grids)
        return type(self)(ids, mask, types, self.labels.to(device), self.sizes)


def _find(ids: Sequence[int], part: Sequence[int], start: int) -> int:
    """Return the position of a sublist. ([2, 7, 3], [7], 0) → 1."""
    places = range(start, len(ids) - len(part) + 1)
    return next((i for i in places if list(ids[i : i + len(part)]) == list(part)), start)
