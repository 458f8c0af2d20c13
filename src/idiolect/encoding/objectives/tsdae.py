"""TSDAE: reconstruct a text from the vector of a damaged copy (Wang et al. 2021, 2104.06979)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.denoiser import Denoiser, damage
from idiolect.encoding.objectives.text_objective import (
    TextObjective,
    check_texts_to_tune,
    hash_texts,
    refuse_teacher,
)
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.nn.network import Network
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.distributed import Workers
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.training_config import TrainingConfig

__all__ = ["TSDAE", "DamagedTexts"]


@dataclass(frozen=True)
class DamagedTexts:
    """Texts and their damaged copies, as token ids."""

    rows: list[list[int]]
    """The ids of each text."""
    damaged: list[list[int]]
    """The ids of its damaged copy."""

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.rows)

    @property
    def count(self) -> int:
        """Number of tokens to reconstruct."""
        return sum(len(row) - 1 for row in self.rows)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.rows)) + sum(map(len, self.damaged))

    def part(self, rows: slice) -> Self:
        """Return a slice of the texts."""
        return type(self)(self.rows[rows], self.damaged[rows])

    def to(self, device: torch.device) -> Self:
        """Return the batch unchanged; ids are moved to the device when they are encoded."""
        return self


class TSDAE(TextObjective, RowwiseObjective):
    """Reconstruct each text from the vector of its damaged copy; see `Denoiser`.

    Args:
        encoder: The encoder to train.
        texts: Distinct texts.
        share: Share of a text's words that are deleted.
        seed: Random seed of the deletions and of the decoder's initial weights.

    Raises:
        InputError: There are fewer than two texts.
    """

    def __init__(
        self, encoder: Encoder, texts: Sequence[str], *, share: float = 0.6, seed: int = 0
    ) -> None:
        check_texts_to_tune(texts)
        self.encoder, self.texts, self.share, self.seed = encoder, texts, share, seed
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.denoiser = Denoiser(encoder.model.network).to(encoder.model.network.device)

    @classmethod
    def create(
        cls,
        encoder: Encoder,
        texts: Sequence[str],
        *,
        teacher: Encoder | None,
        config: TrainingConfig,
        workers: Workers,
    ) -> Self:
        """Make the objective for a run; see `TextObjective`."""
        refuse_teacher("tsdae", teacher)
        return cls(encoder, texts, seed=config.seed)

    @property
    def fingerprint(self) -> str:
        """A hash of the texts and the share of deleted words."""
        return hash_texts([*self.texts, str(self.share)])

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The decoder, which trains with the network and is discarded afterwards."""
        return {"denoiser": self.denoiser}

    def prepare(self, rows: EpochSample) -> DamagedTexts:
        """Delete random words, determined by seed, epoch and text."""
        texts = [self.texts[number] for number in rows.sources]
        damaged = []
        for text, number in zip(texts, rows.sources, strict=True):
            words = text.split()
            draws = np.random.default_rng([self.seed, rows.epoch, number]).random(len(words))
            damaged.append(" ".join(damage(words, draws.tolist(), share=self.share)))
        read, counts = self.encoder.reader.read, EncodingCounts()
        return DamagedTexts(read(texts, None, counts), read(damaged, None, counts))

    def loss(self, network: Network, batch: DamagedTexts) -> Tensor:
        """Return the loss summed over the reconstructed tokens."""
        vectors = self.encoder.embed_rows(batch.damaged)
        if self.encoder.normalize:  # scaled to the size of hidden states
            vectors = vectors * vectors.shape[1] ** 0.5
        longest = max(map(len, batch.rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch.rows])
        lengths = torch.tensor([len(row) for row in batch.rows])
        mask = torch.arange(longest) < lengths[:, None]
        device = vectors.device
        return self.denoiser.loss(network, ids.to(device), mask.to(device), vectors)
