"""Crops: a few words of a text are a query, and the rest of the text is its document.

This is the inverse cloze task (Lee et al. 2019, 1906.00300) with crops of the length of a query
instead of whole sentences. A document does not hold its query's words, except where it repeats
them, so a query cannot be found by the crop itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.contrastive import loss_of_pairs
from idiolect.encoding.objectives.text_objective import (
    TextBatch,
    TextObjective,
    check_texts_to_tune,
    hash_texts,
    refuse_teacher,
)
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.nn.network import Network
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.distributed import Workers
from idiolect.training.objectives.contrastive_losses import InfoNCE
from idiolect.training.objectives.objective import WholeBatchObjective
from idiolect.training.training_config import TrainingConfig

__all__ = ["CroppedTexts", "Crops", "crop"]

_WORDS = (3, 10)
"""Words of a crop, at least and at most."""


@dataclass(frozen=True)
class CroppedTexts(TextBatch):
    """Documents in `rows`, and the crops taken from them."""

    queries: list[list[int]] = field(default_factory=list)
    """The ids of each crop."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.rows)) + sum(map(len, self.queries))


def crop(words: Sequence[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Cut a run of 3 to 10 words, at most half of them, out of a text.

    Returns:
        The run and the other words; of a single word, that word twice.
    """
    longest = min(_WORDS[1], len(words) // 2)
    if longest < 1:
        return list(words), list(words)
    length = int(rng.integers(min(_WORDS[0], longest), longest + 1))
    start = int(rng.integers(0, len(words) - length + 1))
    end = start + length
    return list(words[start:end]), [*words[:start], *words[end:]]


class Crops(TextObjective, WholeBatchObjective):
    """Bring a crop close to the rest of its text, and away from other texts.

    Args:
        encoder: The encoder to train.
        texts: Distinct texts.
        seed: Random seed of the crops.
        temperature: Temperature of `InfoNCE`.
        micro_batch_size: As in `ContrastiveObjective`.
        workers: As in `ContrastiveObjective`.

    Raises:
        InputError: There are fewer than two texts.
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: Sequence[str],
        *,
        seed: int = 0,
        temperature: float = 0.05,
        micro_batch_size: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        check_texts_to_tune(texts)
        self.encoder, self.texts, self.seed = encoder, texts, seed
        self.criterion = InfoNCE(temperature=temperature)
        self.micro_batch_size, self.workers = micro_batch_size, workers or Workers()

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
        refuse_teacher("crops", teacher)
        return cls(
            encoder,
            texts,
            seed=config.seed,
            micro_batch_size=config.micro_batch_size,
            workers=workers,
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the texts."""
        return hash_texts(self.texts)

    def prepare(self, rows: EpochSample) -> CroppedTexts:
        """Cut a crop out of each text, determined by seed, epoch and text."""
        cut = [
            crop(self.texts[number].split(), np.random.default_rng([self.seed, rows.epoch, number]))
            for number in rows.sources
        ]
        queries, documents = (
            [" ".join(words) for words in side] for side in zip(*cut, strict=True)
        )
        read = self.encoder.reader.read
        return CroppedTexts(
            read(documents, "document", EncodingCounts()),
            queries=read(queries, "query", EncodingCounts()),
        )

    def loss(self, network: Network, batch: CroppedTexts) -> Tensor:
        """Return the loss summed over the texts."""
        return loss_of_pairs(
            self.encoder,
            self.criterion,
            batch.queries,
            batch.rows,
            self.workers,
            micro_batch_size=self.micro_batch_size,
        )
