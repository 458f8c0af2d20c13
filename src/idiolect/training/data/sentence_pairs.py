"""Pairs of token ids in batches of similar length, limited by tokens rather than rows.

Padding wastes computation, so pairs of similar length share a batch. Their order is random in each
epoch: pairs are shuffled, stably sorted by length and divided into batches, and the batches are
shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from idiolect.errors import ConfigError, InputError

__all__ = ["PairRows", "SentencePairs"]


@dataclass(frozen=True)
class PairRows:
    """The pairs of one step."""

    sources: list[int]
    """Numbers of the pairs."""
    source_ids: list[list[int]]
    target_ids: list[list[int]]


class SentencePairs:
    """An endless stream of batches of pairs; seed and epoch determine the batches of an epoch.

    Args:
        source_ids: The ids of each source text.
        target_ids: The ids of each target text.
        batch_tokens: Maximum size of a batch: rows times the longest text of either side.
        seed: Random seed of the order.

    Raises:
        InputError: There are no pairs, or the sides differ in number.
        ConfigError: A pair is longer than a batch.
    """

    def __init__(
        self,
        source_ids: Sequence[list[int]],
        target_ids: Sequence[list[int]],
        *,
        batch_tokens: int,
        seed: int = 0,
    ) -> None:
        if not source_ids or len(source_ids) != len(target_ids):
            raise InputError(f"{len(source_ids)} sources and {len(target_ids)} targets")
        self.source_ids, self.target_ids = source_ids, target_ids
        self.batch_tokens, self.seed = batch_tokens, seed
        sizes = np.array([[len(s), len(t)] for s, t in zip(source_ids, target_ids, strict=True)])
        self._sizes = sizes
        if (longest := int(sizes.max())) > batch_tokens:
            raise ConfigError(
                f"a text has {longest} tokens and a batch {batch_tokens}",
                hint="choose a larger batch_tokens, or a smaller max_length",
            )
        self.epoch, self.step = 0, 0
        self._batches = self._divide(0)

    def __len__(self) -> int:
        """Return the number of batches in the current epoch, which varies slightly."""
        return len(self._batches)

    def take(self) -> PairRows:
        """Return the pairs of the next step."""
        if self.step == len(self._batches):
            self.epoch, self.step = self.epoch + 1, 0
            self._batches = self._divide(self.epoch)
        numbers = self._batches[self.step].tolist()
        self.step += 1
        return PairRows(
            numbers, [self.source_ids[n] for n in numbers], [self.target_ids[n] for n in numbers]
        )

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        return {"epoch": self.epoch, "step": self.step}

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.epoch, self.step = state["epoch"], state["step"]
        self._batches = self._divide(self.epoch)

    def _divide(self, epoch: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self._sizes))
        order = order[np.lexsort((self._sizes[order, 0], self._sizes[order, 1]))]
        starts, longest = [0], 0
        for place, size in enumerate(self._sizes[order].max(1).tolist()):
            longest = max(longest, size)
            if longest * (place + 1 - starts[-1]) > self.batch_tokens:
                starts.append(place)
                longest = size
        batches = np.split(order, starts[1:])
        return [batches[i] for i in random.permutation(len(batches))]
