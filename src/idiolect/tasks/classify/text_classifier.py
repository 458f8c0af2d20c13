"""`TextClassifier`: a linear layer on the vector of a text, for any network.

    text ──► encoder ──► vector ──────────────► norm ─► linear ─► labels
    pair ──► encoder ──► u, v ─► [u, v, |u−v|, u·v] ─┘

The texts of a pair are encoded apart (InferSent: Conneau et al. 2017, 1705.02364), so that every
network can classify pairs: encoders, decoders, recurrent networks, static vectors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts, by_length
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.models.weight_files import load_module
from idiolect.nn.lora import LoraConfig
from idiolect.nn.network import Network
from idiolect.tasks.classify.labelled_texts import LabelledText, fingerprint_texts
from idiolect.tasks.finetuning.auxiliary_loss import check_language_loss
from idiolect.tasks.finetuning.recipe import FineTuning
from idiolect.tasks.finetuning.text_states import read_texts, vector_width
from idiolect.text.arguments import check_path, checked, load_if_named
from idiolect.text.files import read_json, write_atomic
from idiolect.training.data.shuffled_epochs import EpochSample, ShuffledEpochs
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.optim import Train
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["Adaptation", "TextClassifier", "classification_config"]

Adaptation = Literal["full", "lora", "frozen"]
"""What trains beside the head: the network but its original rows; LoRA adapters and added rows;
nothing."""

_TRAINED: dict[Adaptation, Train] = {"full": "all", "lora": "rows+lora", "frozen": "attached"}
_RATES: dict[Adaptation, float] = {"full": 5e-5, "lora": 5e-4, "frozen": 1e-2}
_RECORD, _HEAD = "classifier.json", "head.safetensors"


def classification_config(adaptation: Adaptation = "full", **values: Any) -> TrainingConfig:
    """Return the default training settings: 32 texts per step, and a higher rate for the head.

    Args:
        adaptation: What trains.
        values: Fields of `TrainingConfig` to override.
    """
    if adaptation not in get_args(Adaptation):
        raise ConfigError(
            f"unknown adaptation {adaptation!r}", hint="one of " + ", ".join(get_args(Adaptation))
        )
    usual = {
        "batch_size": 32,
        "learning_rate": _RATES[adaptation],
        # If only the head trains, `learning_rate` is its rate.
        "learning_rates": {} if adaptation == "frozen" else {"attached": 2e-3},
        "min_lr_ratio": 0.0,
        "weight_decay": 0.01,
    }
    return TrainingConfig.from_dict(usual | values)


class TextClassifier:
    """An encoder and a layer that scores labels.

    >>> model = TextClassifier(Encoder.load("path/to/encoder"), ["no", "yes"])  # doctest: +SKIP
    >>> model.train(examples, output_dir="runs/classifier")                     # doctest: +SKIP
    >>> model.predict([LabelledText("a text")])                                 # doctest: +SKIP

    Args:
        encoder: Any encoder; its pooling and projection make the vector of a text.
        labels: The labels, at least two.
        pairs: Whether to classify pairs of texts.
        concat_pooling: Read [last, max, mean] of the states instead of the encoder's vector.
        seed: Random seed of the head.

    Raises:
        ConfigError: Fewer than two labels, or one twice; concat pooling of a static encoder.
    """

    @checked
    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str],
        *,
        pairs: bool = False,
        concat_pooling: bool = False,
        seed: int = 0,
    ) -> None:
        self.encoder = load_if_named(encoder, Encoder, "encoder")
        self.labels = tuple(labels)
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise ConfigError(f"labels are {list(labels)}", hint="at least two, each once")
        self.pairs, self.concat_pooling = pairs, concat_pooling
        self.temperature = 1.0
        """Divides the scores; see `calibrate`."""
        width = vector_width(self.encoder, concat_pooling=concat_pooling) * (4 if pairs else 1)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(self.labels)))
        self.head.to(self.encoder.model.network.device)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that determines scores."""
        return self._fingerprint(self.encoder)

    @classmethod
    @checked
    def load(cls, directory: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load a model that `save` wrote.

        Raises:
            CheckpointError: Files are missing, damaged or of different models.
        """
        directory = check_path(directory, "directory")
        record = read_json(directory / _RECORD)
        labels, temperature = record.get("labels"), record.get("temperature")
        known = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        if not known or not isinstance(temperature, float) or not temperature > 0:
            raise CheckpointError(f"{directory / _RECORD} is damaged", hint="save it again")
        encoder = Encoder.load(directory / "encoder", device=device)
        model = cls(
            encoder,
            list(labels or ()),
            pairs=record.get("pairs") is True,
            concat_pooling=record.get("concat_pooling") is True,
        )
        load_module(model.head, directory / _HEAD)
        model.temperature = temperature
        if model.fingerprint != record.get("fingerprint"):
            raise CheckpointError(
                f"the files in {directory} are of different models", hint="save it again"
            )
        return model

    @checked
    def save(self, directory: str | Path) -> None:
        """Write encoder and head; the record is last, so `load` rejects an incomplete directory.

        Raises:
            InputError: The directory cannot be written to.
        """
        directory = check_path(directory, "directory")
        self.encoder.save(directory / "encoder")
        tensors = {name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}
        write_atomic(directory / _HEAD, save(tensors))
        self.save_record(directory)

    def save_record(self, directory: Path) -> None:
        """Write labels and temperature again, after `calibrate`."""
        record = {
            "labels": self.labels,
            "pairs": self.pairs,
            "concat_pooling": self.concat_pooling,
            "temperature": self.temperature,
            # Hash the saved encoder: saving merges the adapters, which are still apart in memory.
            "fingerprint": self._fingerprint(Encoder.load(directory / "encoder")),
        }
        write_atomic(directory / _RECORD, f"{json.dumps(record, indent=2)}\n".encode())

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
        fine_tuning: FineTuning | None = None,
    ) -> Self:
        """Train on examples. Run it again to resume. Original embedding rows stay unchanged.

        Args:
            examples: Texts with labels.
            output_dir: The run's folder. The finished model is in `output_dir/model`.
            adaptation: What trains beside the head.
            epochs: Number of epochs over the examples.
            balanced: Weigh each label by the inverse of its frequency.
            lora: Size and place of the adapters, with `adaptation="lora"`.
            config: Training settings, by default `classification_config(adaptation)`.
            fine_tuning: Rates by layer, unfreezing and auxiliary loss; see `FineTuning`.

        Raises:
            ConfigError: The methods of `fine_tuning` do not fit the network or the number of steps.
            InputError: There are no examples, or an example's label is not of this classifier.
            CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
            TrainingError: The loss is not finite or explodes.
        """
        config, methods = config or classification_config(adaptation), fine_tuning or FineTuning()
        if methods.concat_pooling and not self.concat_pooling:
            raise ConfigError("the classifier has no concat pooling", hint="create it with it")
        if methods.lm_loss_weight:
            check_language_loss(self.encoder)
        if epochs < 1:
            raise ConfigError(f"epochs is {epochs}", hint="choose at least 1")
        truth = self.numbers(examples)
        source = ShuffledEpochs(len(examples), rows=config.batch_size, seed=config.seed)
        session = TrainingSession(
            self.encoder.model,
            out=output_dir,
            config=methods.training_config(config, source.steps),
            steps=epochs * source.steps,
            train=_TRAINED[adaptation],
            lora=lora,
            unfreeze_original_rows=methods.unfreeze_original_rows,
            modules={"classifier": self.head},
            heads=methods.lm_loss_weight > 0,
        )
        record = {
            "examples": fingerprint_texts(examples),
            "balanced": balanced,
            "lm_loss_weight": methods.lm_loss_weight,
        }
        session.begin({"classifier": self.fingerprint, **record})
        objective = _Classification(self, examples, truth, balanced, methods.lm_loss_weight)
        session.train(objective, source)
        session.publish(self.save)
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

    def _fingerprint(self, encoder: Encoder) -> str:
        head = fingerprint(self.head.state_dict())
        pooling = "-concat" if self.concat_pooling else ""
        return f"{encoder.fingerprint}-{head}-{self.pairs}{pooling}-{'|'.join(self.labels)}"

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
        return self.logits_and_language_loss(rows, language_loss=False)[0]

    def logits_and_language_loss(
        self, rows: Sequence[Sequence[Sequence[int]]], *, language_loss: bool
    ) -> tuple[Tensor, Tensor]:
        """Score what `read` returned, and predict the texts' own tokens in the same pass.

        Shape: (texts, labels), and a scalar: the sum over the texts, see `next_token_loss`.
        """
        vectors, losses = zip(
            *(
                read_texts(
                    self.encoder,
                    [row[side] for row in rows],
                    concat_pooling=self.concat_pooling,
                    language_loss=language_loss,
                )
                for side in range(2 if self.pairs else 1)
            ),
            strict=True,
        )
        sides = [vector.float() for vector in vectors]
        if self.pairs:
            u, v = sides
            sides = [u, v, (u - v).abs(), u * v]
        return self.head(torch.cat(sides, -1)), torch.stack(losses).sum()


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
    """Cross-entropy of the labels, and that of the texts' tokens times `lm_loss_weight`."""

    def __init__(
        self,
        model: TextClassifier,
        examples: Sequence[LabelledText],
        truth: NDArray[np.int64],
        balanced: bool,
        lm_loss_weight: float = 0.0,
    ) -> None:
        self.model, self.examples, self.truth = model, examples, truth
        self.lm_loss_weight = lm_loss_weight
        counts = np.bincount(truth, minlength=len(model.labels)).clip(1)
        weights = len(truth) / (len(model.labels) * counts) if balanced else np.ones(len(counts))
        self.weights = torch.from_numpy(weights).float()

    def prepare(self, rows: EpochSample) -> _Batch:
        chosen = [self.examples[number] for number in rows.sources]
        return _Batch(self.model.read(chosen), torch.from_numpy(self.truth[list(rows.sources)]))

    def loss(self, network: Network, batch: _Batch) -> Tensor:
        scores, language_loss = self.model.logits_and_language_loss(
            batch.rows, language_loss=self.lm_loss_weight > 0
        )
        weights = self.weights.to(scores.device)
        loss = F.cross_entropy(scores.float(), batch.labels, weights, reduction="sum")
        return loss + self.lm_loss_weight * language_loss
