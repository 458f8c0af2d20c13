"""Rows sampled from several sources, such as one for each language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from idiolect.training.data.packed_documents import PackedRows, join_rows

__all__ = ["MixedRows"]


class MixedRows:
    """An endless stream of rows; seed and step determine the source of each row.

    Args:
        sources: Sources of `PackedRows` of one length, whose `take` accepts a number of rows.
        shares: The probability of each source.
        rows: Rows per step.
        seed: Random seed.
        documents: The number of documents of each source, to number all documents consecutively.
    """

    def __init__(
        self,
        sources: Sequence[Any],
        shares: Sequence[float],
        *,
        rows: int,
        seed: int,
        documents: Sequence[int],
    ) -> None:
        self.sources, self.shares, self.rows, self.seed = list(sources), list(shares), rows, seed
        self._first = np.cumsum([0, *documents[:-1]]).tolist()
        self.done = 0
        """Rows returned since the start of the run."""

    def take(self, count: int | None = None) -> PackedRows:
        """Return the rows of the next step."""
        count = self.rows if count is None else count
        random = np.random.default_rng([self.seed, self.done, len(self.sources)])
        drawn = random.choice(len(self.sources), count, p=self.shares)
        parts = []
        for number, source in enumerate(self.sources):
            places = (drawn == number).nonzero()[0]
            if len(places):
                parts.append((places, source.take(len(places)), self._first[number]))
        joined = join_rows(parts, first=self.done)
        self.done += count
        return joined

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        states = [source.state() for source in self.sources]
        return {"rows": self.done, "epochs": min(s["epochs"] for s in states), "sources": states}

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.done = state["rows"]
        for source, own in zip(self.sources, state["sources"], strict=True):
            source.restore(own)
