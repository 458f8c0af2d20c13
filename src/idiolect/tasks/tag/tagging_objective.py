"""Training objective of tagging: cross-entropy of single tags, or a CRF on the sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from idiolect.nn.network import Network
from idiolect.tasks.tag.linear_chain_crf import LinearChainCrf
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.objectives.objective import RowwiseObjective

__all__ = ["TaggedWindow", "TaggingBatch", "TaggingObjective", "tagging_loss"]


@dataclass(frozen=True)
class TaggedWindow:
    """A window of a text, and the words that are tagged in it."""

    text: int
    """Index of the text."""
    ids: list[int]
    words: slice
    """The words that are tagged here."""
    places: list[int]
    """Token position of each of these words."""


@dataclass(frozen=True)
class TaggingBatch:
    """Windows and their true tags."""

    windows: list[TaggedWindow]
    tags: Tensor
    """Shape: (windows, words)."""

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def count(self) -> int:
        """Number of words."""
        return sum(len(window.places) for window in self.windows)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(len(window.ids) for window in self.windows)

    def part(self, rows: slice) -> TaggingBatch:
        """Return some of the windows."""
        windows = self.windows[rows]
        longest = max((len(window.places) for window in windows), default=0)
        return TaggingBatch(windows, self.tags[rows, :longest])

    def to(self, device: torch.device) -> TaggingBatch:
        """Return the batch on a device."""
        return replace(self, tags=self.tags.to(device))


class TaggingObjective(RowwiseObjective):
    """The negative log-likelihood of the true tags, one by one or as a sequence.

    Args:
        score_words: Scores the tags of the words of windows, and returns the mask of the words.
            Shape: (windows, words, tags) and (windows, words).
        crf: Scores sequences of tags; without one, each tag is scored by itself.
        windows: The windows.
        tags: The true tags of each window's words.
    """

    def __init__(
        self,
        score_words: Callable[[Sequence[TaggedWindow]], tuple[Tensor, Tensor]],
        crf: LinearChainCrf | None,
        windows: Sequence[TaggedWindow],
        tags: Sequence[NDArray[np.int64]],
    ) -> None:
        self.score_words, self.crf, self.windows, self.tags = score_words, crf, windows, tags

    def prepare(self, rows: EpochSample) -> TaggingBatch:
        """Return the batch of some windows."""
        numbers = rows.sources
        tags = pad_sequence([torch.from_numpy(self.tags[n]) for n in numbers], True, 0)
        return TaggingBatch([self.windows[n] for n in numbers], tags)

    def loss(self, network: Network, batch: TaggingBatch) -> Tensor:
        """Return the loss summed over the words."""
        scores, mask = self.score_words(batch.windows)
        return tagging_loss(scores, batch.tags, mask, self.crf)


def tagging_loss(scores: Tensor, tags: Tensor, mask: Tensor, crf: LinearChainCrf | None) -> Tensor:
    """Return the negative log-likelihood of the tags, summed over the words.

    Shape: scores (windows, words, tags), tags and mask (windows, words), result a scalar.
    """
    if crf is not None:
        return crf(scores.float(), tags, mask).sum()  # type: ignore[no-any-return]
    return F.cross_entropy(scores[mask].float(), tags[mask], reduction="sum")
