"""Training objective of classification, with an optional language-model loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.nn.matrix_precision import TrainingPrecision
from idiolect.nn.network import Network
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.finetuning.frozen_states import FrozenObjective, StatesBatch, frozen_states
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.objectives.objective import RowwiseObjective

__all__ = ["ClassificationObjective", "LabelScorer"]

_Rows = list[list[list[int]]]
"""The ids of each example's text, or of both its texts."""


class LabelScorer(Protocol):
    """The part of a classifier that the objective uses; see `TextClassifier`."""

    encoder: Encoder
    head: nn.Module
    width: int

    def read(self, examples: Sequence[LabelledText]) -> _Rows:
        """Return the ids of each example."""

    def features(self, rows: _Rows, *, language_loss: bool) -> tuple[Tensor, Tensor]:
        """Return the input of the head, and the language-model loss of the texts."""

    def loss(self, scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the summed loss of scores."""


@dataclass(frozen=True)
class _Batch:
    rows: _Rows
    labels: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def tokens(self) -> int:
        return sum(len(ids) for row in self.rows for ids in row)

    def part(self, rows: slice) -> _Batch:
        return _Batch(self.rows[rows], self.labels[rows])

    def to(self, device: torch.device) -> _Batch:
        return replace(self, labels=self.labels.to(device))


class ClassificationObjective(RowwiseObjective):
    """Cross-entropy of the labels plus `lm_loss_weight` times that of the texts' tokens.

    Args:
        model: The classifier.
        examples: Texts with labels.
        targets: The target of `model.loss` for each example.
        weights: Weights of the labels, if any.
        lm_loss_weight: Weight of a text's mean next-token loss.
    """

    def __init__(
        self,
        model: LabelScorer,
        examples: Sequence[LabelledText],
        targets: NDArray[Any],
        weights: NDArray[Any] | None = None,
        lm_loss_weight: float = 0.0,
    ) -> None:
        self.model, self.examples, self.targets = model, examples, targets
        self.weights = None if weights is None else torch.from_numpy(weights).float()
        self.lm_loss_weight = lm_loss_weight

    def prepare(self, rows: EpochSample) -> _Batch:
        """Return the batch of some examples."""
        chosen = [self.examples[number] for number in rows.sources]
        return _Batch(self.model.read(chosen), torch.from_numpy(self.targets[list(rows.sources)]))

    def loss(self, network: Network, batch: _Batch) -> Tensor:
        """Return the loss summed over the texts."""
        features, language_loss = self.model.features(
            batch.rows, language_loss=self.lm_loss_weight > 0
        )
        return self._of_labels(features, batch.labels) + self.lm_loss_weight * language_loss

    def on_frozen_states(self, precision: TrainingPrecision) -> FrozenObjective | None:
        """Return the objective on precomputed vectors, or None if they need too much memory."""
        model, rows = self.model, self.model.read(self.examples)
        targets = torch.from_numpy(self.targets)

        def vectors(numbers: list[int]) -> Sequence[Tensor]:
            return model.features([rows[n] for n in numbers], language_loss=False)[0].unbind()

        def loss(batch: StatesBatch) -> Tensor:
            features = torch.stack(batch.states)
            return self._of_labels(features, targets[batch.examples].to(features.device))

        kept = frozen_states(
            model.encoder.model.network,
            [[token for ids in row for token in ids] for row in rows],
            vectors,
            numbers=len(rows) * model.width,
            precision=precision,
        )
        return None if kept is None else FrozenObjective(kept, loss)

    def _of_labels(self, features: Tensor, targets: Tensor) -> Tensor:
        scores = self.model.head(features).float()
        weights = None if self.weights is None else self.weights.to(scores.device)
        return self.model.loss(scores, targets, weights)
