"""SimCSE: two dropout passes over a text are a positive pair (Gao et al. 2021, 2104.08821)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

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
from idiolect.errors import InputError
from idiolect.nn.network import Network
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.distributed import Workers
from idiolect.training.objectives.contrastive_losses import InfoNCE
from idiolect.training.objectives.objective import WholeBatchObjective
from idiolect.training.training_config import TrainingConfig

__all__ = ["SimCSE"]


class SimCSE(TextObjective, WholeBatchObjective):
    """Bring two dropout passes over one text together, and different texts apart.

    Args:
        encoder: The encoder to train.
        texts: Distinct texts.
        temperature: Temperature of `InfoNCE`.
        micro_batch_size: As in `ContrastiveObjective`.
        workers: As in `ContrastiveObjective`.

    Raises:
        InputError: There are fewer than two texts, or the network has no dropout.
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: Sequence[str],
        *,
        temperature: float = 0.05,
        micro_batch_size: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        check_texts_to_tune(texts)
        if not encoder.model.network.has_dropout:
            raise InputError(
                "this model has no dropout, so two passes over a text are equal",
                hint="choose the objective 'tsdae'",
            )
        self.encoder, self.texts = encoder, texts
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
        refuse_teacher("simcse", teacher)
        return cls(encoder, texts, micro_batch_size=config.micro_batch_size, workers=workers)

    @property
    def fingerprint(self) -> str:
        """A hash of the texts."""
        return hash_texts(self.texts)

    def prepare(self, rows: EpochSample) -> TextBatch:
        """Make a batch of texts."""
        texts = [self.texts[number] for number in rows.sources]
        return TextBatch(self.encoder.reader.read(texts, None, EncodingCounts()))

    def loss(self, network: Network, batch: TextBatch) -> Tensor:
        """Return the loss summed over the texts."""
        return loss_of_pairs(
            self.encoder,
            self.criterion,
            batch.rows,
            batch.rows,
            self.workers,
            micro_batch_size=self.micro_batch_size,
        )
