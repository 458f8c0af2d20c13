"""`TextClassifier`: a linear layer on the vector of a text, for any network.

    text ──► encoder ──► vector ──────────────► norm ─► linear ─► labels
    pair ──► encoder ──► u, v ─► [u, v, |u−v|, u·v] ─┘

The texts of a pair are encoded apart (InferSent: Conneau et al. 2017, 1705.02364), so that every
network can classify pairs: encoders, decoders, recurrent networks, static vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts, by_length
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.nn.lora import LoraConfig
from idiolect.nn.network import Network
from idiolect.tasks.classify.labelled_texts import LabelledText, fingerprint_texts
from idiolect.tasks.task_model import Adaptation, TaskModel
from idiolect.text.arguments import checked, load_if_named
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.training_config import TrainingConfig

__all__ = ["TextClassifier"]


class TextClassifier(TaskModel):
    """An encoder and a layer that scores labels.

    >>> model = TextClassifier(Encoder.load("path/to/encoder"), ["no", "yes"])  # doctest: +SKIP
    >>> model.train(examples, output_dir="runs/classifier")                     # doctest: +SKIP
    >>> model.predict([LabelledText("a text")])                                 # doctest: +SKIP

    Args:
        encoder: Any encoder; its pooling and projection make the vector of a text.
        labels: The labels, at least two.
        pairs: Whether to classify pairs of texts.
        seed: Random seed of the head.

    Raises:
        ConfigError: Fewer than two labels, or one twice.
    """

    name = "classifier"

    @checked
    def __init__(
        self, encoder: Encoder, labels: Sequence[str], *, pairs: bool = False, seed: int = 0
    ) -> None:
        encoder = load_if_named(encoder, Encoder, "encoder")
        self.labels = tuple(labels)
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise ConfigError(f"labels are {list(labels)}", hint="at least two, each once")
        self.pairs = pairs
        self.temperature = 1.0
        """Divides the scores; see `calibrate`."""
        width = encoder.dimensions * (4 if pairs else 1)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(self.labels)))
        super().__init__(encoder, head)

    @property
    def settings(self) -> dict[str, Any]:
        """Labels, pairs and temperature."""
        return {"labels": self.labels, "pairs": self.pairs, "temperature": self.temperature}

    @property
    def identity(self) -> str:
        """Whether texts are pairs, and the labels."""
        return f"{self.pairs}-{'|'.join(self.labels)}"

    @classmethod
    def of_record(cls, encoder: Encoder, record: Mapping[str, Any], path: Path) -> Self:
        """Return an untrained classifier with the settings of a record.

        Raises:
            CheckpointError: The record is damaged.
        """
        labels, temperature = record.get("labels"), record.get("temperature")
        known = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        if not known or not isinstance(temperature, float) or not temperature > 0:
            raise CheckpointError(f"{path} is damaged", hint="save it again")
        model = cls(encoder, list(labels or ()), pairs=record.get("pairs") is True)
        model.temperature = temperature
        return model

    def train(
        self,
        examples: Sequence[LabelledText],
        *,
        output_dir: str | Path,
        adaptation: Adaptation = "full",
        epochs: int = 3,
        balanced: bool = False,
        lora: LoraConfig | None = None,
        config: TrainingConfig | None = None,
    ) -> Self:
        """Train on examples. Run it again to resume. Original embedding rows stay unchanged.

        Args:
            examples: Texts with labels.
            output_dir: The run's folder. The finished model is in `output_dir/model`.
            adaptation: What trains beside the head.
            epochs: Number of epochs over the examples.
            balanced: Weigh each label by the inverse of its frequency.
            lora: Size and place of the adapters, with `adaptation="lora"`.
            config: Training settings, by default `task_config(adaptation)`.

        Raises:
            InputError: There are no examples, or an example's label is not of this classifier.
            CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
            TrainingError: The loss is not finite or explodes.
        """
        truth = self.numbers(examples)
        self.fit(
            _Classification(self, examples, truth, balanced),
            len(examples),
            {"examples": fingerprint_texts(examples), "balanced": balanced},
            output_dir=output_dir,
            adaptation=adaptation,
            epochs=epochs,
            lora=lora,
            config=config,
        )
        return self

    def numbers(self, examples: Sequence[LabelledText]) -> NDArray[np.int64]:
        """Return the number of each example's label.

        Raises:
            InputError: There are no examples, or a label is not of this classifier.
        """
        if not examples:
            raise InputError("there are no examples", hint="give at least one")
        known = {label: number for number, label in enumerate(self.labels)}
        if unknown := sorted({str(e.label) for e in examples if e.label not in known}):
            raise InputError(
                f"unknown label {unknown[0]!r} ({len(unknown)} unknown labels)",
                hint=f"the classifier knows {', '.join(self.labels[:20])}",
            )
        return np.array([known[str(example.label)] for example in examples])

    def calibrate(self, examples: Sequence[LabelledText]) -> float:
        """Fit the temperature to examples that are not trained on (Guo et al. 2017, 1706.04599).

        It changes probabilities but not predictions.

        Returns:
            The temperature; above 1, the classifier was overconfident.
        """
        truth, scores = self.numbers(examples), self._scores(examples)

        def loss(log_temperature: float) -> float:
            found = log_softmax(scores / np.exp(log_temperature), axis=1)
            return -float(found[np.arange(len(truth)), truth].mean())

        # A classifier that makes no error on them would become infinitely sure without a bound.
        found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
        self.temperature = float(np.exp(found.x))
        return self.temperature

    def probabilities(self, examples: Sequence[LabelledText]) -> NDArray[np.float64]:
        """Return the calibrated probability of each label. Shape: (texts, labels)."""
        found: NDArray[np.float64] = softmax(self._scores(examples) / self.temperature, axis=1)
        return found

    def predict(self, examples: Sequence[LabelledText]) -> list[str]:
        """Return the most probable label of each text."""
        return [self.labels[number] for number in self._scores(examples).argmax(1)]

    def _scores(self, examples: Sequence[LabelledText]) -> NDArray[np.float64]:
        counts = EncodingCounts()
        rows = self.read(examples, counts)
        counts.warn(self.encoder.max_length)
        joined = [[token for ids in row for token in ids] for row in rows]
        scores = np.zeros((len(examples), len(self.labels)))
        self.encoder.model.network.eval()
        with torch.inference_mode():
            for batch in by_length(joined, 4096):
                scores[batch] = self.logits([rows[i] for i in batch]).double().cpu().numpy()
        return scores

    def read(
        self, examples: Sequence[LabelledText], counts: EncodingCounts | None = None
    ) -> list[list[list[int]]]:
        """Return the ids of each example's text, or of both its texts.

        Args:
            examples: The examples.
            counts: Updated with the numbers of read and truncated texts.

        Raises:
            InputError: An example is a pair and the classifier is not for pairs, or the reverse.
        """
        if any((example.text_pair is not None) != self.pairs for example in examples):
            wanted = "pairs of texts" if self.pairs else "single texts"
            raise InputError(
                f"the classifier reads {wanted}", hint="check the fields that are read"
            )
        counts = EncodingCounts() if counts is None else counts
        first = self.encoder.reader.read([example.text for example in examples], None, counts)
        if not self.pairs:
            return [[ids] for ids in first]
        second = self.encoder.reader.read([str(e.text_pair) for e in examples], None, counts)
        return [list(both) for both in zip(first, second, strict=True)]

    def logits(self, rows: Sequence[Sequence[Sequence[int]]]) -> Tensor:
        """Score what `read` returned. Shape: (texts, labels)."""
        sides = [
            self.encoder.pooled_rows(side).float()
            for side in ([row[i] for row in rows] for i in range(2 if self.pairs else 1))
        ]
        if self.pairs:
            u, v = sides
            sides = [u, v, (u - v).abs(), u * v]
        scores: Tensor = self.head(torch.cat(sides, -1))
        return scores


@dataclass(frozen=True)
class _Batch:
    rows: list[list[list[int]]]
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


class _Classification(RowwiseObjective):
    """Cross-entropy of the labels."""

    def __init__(
        self,
        model: TextClassifier,
        examples: Sequence[LabelledText],
        truth: NDArray[np.int64],
        balanced: bool,
    ) -> None:
        self.model, self.examples, self.truth = model, examples, truth
        counts = np.bincount(truth, minlength=len(model.labels)).clip(1)
        weights = len(truth) / (len(model.labels) * counts) if balanced else np.ones(len(counts))
        self.weights = torch.from_numpy(weights).float()

    def prepare(self, rows: EpochSample) -> _Batch:
        chosen = [self.examples[number] for number in rows.sources]
        return _Batch(self.model.read(chosen), torch.from_numpy(self.truth[list(rows.sources)]))

    def loss(self, network: Network, batch: _Batch) -> Tensor:
        scores = self.model.logits(batch.rows).float()
        return F.cross_entropy(
            scores, batch.labels, self.weights.to(scores.device), reduction="sum"
        )
