"""`TextClassifier`: a linear layer on the vector of a text, for any network.

    text ──► encoder ──► vector ──────────────► norm ─► linear ─► labels
    pair ──► encoder ──► u, v ─► [u, v, |u−v|, u·v] ─┘

The texts of a pair are encoded separately (InferSent: Conneau et al. 2017, 1705.02364), so that any
network can classify pairs: encoders, decoders, recurrent networks, static vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts, by_length
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.nn.lora import LoraConfig
from idiolect.tasks.classify.classification_objective import ClassificationObjective
from idiolect.tasks.classify.labelled_texts import LabelledText, fingerprint_texts
from idiolect.tasks.finetuning.auxiliary_loss import check_language_loss
from idiolect.tasks.finetuning.recipe import FineTuning
from idiolect.tasks.finetuning.text_states import read_texts, vector_width
from idiolect.tasks.task_model import Adaptation, TaskModel, task_config
from idiolect.tasks.windows import windows
from idiolect.text.arguments import checked, load_if_named
from idiolect.training.training_config import TrainingConfig

__all__ = ["TextClassifier"]


class TextClassifier(TaskModel):
    """An encoder and a layer that scores labels.

    >>> model = TextClassifier(Encoder.load("path/to/encoder"), ["no", "yes"])  # doctest: +SKIP
    >>> model.train(examples, output_dir="runs/classifier")                     # doctest: +SKIP
    >>> model.predict([LabelledText("a text")])                                 # doctest: +SKIP

    Args:
        encoder: Any encoder; its pooling and projection produce the vector of a text.
        labels: The labels, at least two.
        pairs: Whether to classify pairs of texts.
        concat_pooling: Use [last, max, mean] of the states instead of the encoder's vector.
        stride: Read longer texts in windows that overlap by this many tokens: each window is a
            training example, and predictions average the scores of a text's windows. By default,
            longer texts are truncated.
        seed: Random seed of the head.

    Raises:
        ConfigError: Fewer than two labels, or duplicates; concat pooling of a static encoder;
            windows of pairs, or windows that would overlap completely.
    """

    name = "classifier"

    @checked
    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str],
        *,
        pairs: bool = False,
        concat_pooling: bool = False,
        stride: int | None = None,
        seed: int = 0,
    ) -> None:
        encoder = load_if_named(encoder, Encoder, "encoder")
        self.labels = tuple(labels)
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise ConfigError(f"labels are {list(labels)}", hint="at least two, each once")
        self.pairs, self.concat_pooling, self.stride = pairs, concat_pooling, stride
        if stride is not None:
            if pairs:
                raise ConfigError("pairs are not read in windows", hint="omit stride")
            windows(1, _text_tokens(encoder), stride)
        self.temperature = 1.0
        """Temperature that divides the scores; see `calibrate`."""
        self.width = vector_width(encoder, concat_pooling=concat_pooling) * (4 if pairs else 1)
        """Input width of the head."""
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            head = nn.Sequential(nn.LayerNorm(self.width), nn.Linear(self.width, len(self.labels)))
        super().__init__(encoder, head)

    @property
    def settings(self) -> dict[str, Any]:
        """Labels, input options and temperature."""
        return {
            "labels": self.labels,
            "pairs": self.pairs,
            "concat_pooling": self.concat_pooling,
            "stride": self.stride,
            "temperature": self.temperature,
        }

    @property
    def identity(self) -> str:
        """Input options and labels, as text."""
        pooling = "-concat" if self.concat_pooling else ""
        pooling += "" if self.stride is None else f"-stride{self.stride}"
        return f"{self.pairs}{pooling}-{'|'.join(self.labels)}"

    @classmethod
    def of_record(cls, encoder: Encoder, record: Mapping[str, Any], path: Path) -> Self:
        """Create an untrained classifier from saved settings.

        Raises:
            CheckpointError: The record is damaged.
        """
        labels, temperature = record.get("labels"), record.get("temperature")
        stride = record.get("stride")
        known = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        known = known and (stride is None or type(stride) is int)
        if not known or not isinstance(temperature, float) or not temperature > 0:
            raise CheckpointError(f"{path} is damaged", hint="save it again")
        model = cls(
            encoder,
            list(labels or ()),
            pairs=record.get("pairs") is True,
            concat_pooling=record.get("concat_pooling") is True,
            stride=stride,
        )
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
        fine_tuning: FineTuning | None = None,
    ) -> Self:
        """Train on examples. Run it again to resume. Original embedding rows stay unchanged.

        Args:
            examples: Texts with labels.
            output_dir: The run's folder. The finished model is in `output_dir/model`.
            adaptation: Parameters that train in addition to the head.
            epochs: Number of epochs over the examples.
            balanced: Weight each label by the inverse of its frequency.
            lora: Rank and target modules of the adapters, with `adaptation="lora"`.
            config: Training settings, by default `task_config(adaptation)`.
            fine_tuning: Learning rates by layer, unfreezing and auxiliary loss; see `FineTuning`.

        Raises:
            ConfigError: The methods of `fine_tuning` do not fit the network or the number of steps.
            InputError: There are no examples, or an example's label is not of this classifier.
            CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
            TrainingError: The loss is not finite or explodes.
        """
        methods = fine_tuning or FineTuning()
        if methods.concat_pooling and not self.concat_pooling:
            raise ConfigError("the classifier has no concat pooling", hint="create it with it")
        if methods.lm_loss_weight:
            check_language_loss(self.encoder)
        self.add_virtual_tokens(adaptation, config)
        self.targets(examples)  # before the split into windows, so that messages number the texts
        examples, _ = self._windows(examples)
        config = config or task_config(adaptation)
        targets = self.targets(examples)
        weights = self.label_weights(targets) if balanced else None
        objective = ClassificationObjective(
            self, examples, targets, weights, methods.lm_loss_weight
        )
        kept = None
        if adaptation == "frozen" and not methods.lm_loss_weight:
            kept = objective.on_frozen_states(config.precision)
        self.fit(
            kept or objective,
            len(examples),
            {"examples": fingerprint_texts(examples), "balanced": balanced},
            output_dir=output_dir,
            adaptation=adaptation,
            epochs=epochs,
            lora=lora,
            config=config,
            fine_tuning=methods,
        )
        return self

    def numbers(self, examples: Sequence[LabelledText]) -> NDArray[np.int64]:
        """Return the index of each example's label.

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
        """Fit the temperature to held-out examples (Guo et al. 2017, 1706.04599).

        It changes probabilities but not predictions.

        Returns:
            The temperature; above 1, the classifier was overconfident.
        """
        targets = torch.from_numpy(self.targets(examples))
        scores = torch.from_numpy(self._scores(examples))

        def loss(log_temperature: float) -> float:
            return float(self.loss(scores / np.exp(log_temperature), targets)) / len(targets)

        # Without bounds, the temperature would go to zero if the classifier makes no error on them.
        found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
        self.temperature = float(np.exp(found.x))
        return self.temperature

    def targets(self, examples: Sequence[LabelledText]) -> NDArray[Any]:
        """Return the targets of `loss`: the indices of the labels. Shape: (texts,).

        Raises:
            InputError: As for `numbers`.
        """
        return self.numbers(examples)

    def label_weights(self, targets: NDArray[Any]) -> NDArray[np.float64]:
        """Return the inverse frequency of each label, with mean 1 over the texts. (labels,)."""
        counts = np.bincount(targets, minlength=len(self.labels)).clip(1)
        found: NDArray[np.float64] = len(targets) / (len(self.labels) * counts)
        return found

    def loss(self, scores: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the negative log-likelihood summed over texts. Shape: (texts, labels), a scalar.

        Args:
            scores: Output of the head.
            targets: As `targets` returns them.
            weights: As `label_weights` returns them, if labels are weighted.
        """
        return F.cross_entropy(scores, targets, weights, reduction="sum")

    def probabilities(self, examples: Sequence[LabelledText]) -> NDArray[np.float64]:
        """Return the calibrated probability of each label. Shape: (texts, labels)."""
        found: NDArray[np.float64] = softmax(self._scores(examples) / self.temperature, axis=1)
        return found

    def predict(self, examples: Sequence[LabelledText]) -> list[str]:
        """Return the most probable label of each text."""
        return [self.labels[number] for number in self._scores(examples).argmax(1)]

    def _scores(self, examples: Sequence[LabelledText]) -> NDArray[np.float64]:
        counts = EncodingCounts()
        parts, sources = self._windows(examples)
        rows = self.read(parts, counts)
        counts.warn(self.encoder.max_length)
        joined = [[token for ids in row for token in ids] for row in rows]
        scores = np.zeros((len(parts), len(self.labels)))
        self.encoder.model.network.eval()
        with torch.inference_mode():
            for batch in by_length(joined, 4096):
                scores[batch] = self.logits([rows[i] for i in batch]).double().cpu().numpy()
        if len(parts) == len(examples):
            return scores
        summed = np.zeros((len(examples), len(self.labels)))
        np.add.at(summed, sources, scores)
        mean: NDArray[np.float64] = summed / np.bincount(sources)[:, None]
        return mean

    def _windows(
        self, examples: Sequence[LabelledText]
    ) -> tuple[Sequence[LabelledText], NDArray[np.int64]]:
        """Return the windows of texts as examples, and the index of each window's text."""
        if self.stride is None:
            return examples, np.arange(len(examples))
        encoded = self.encoder.model.tokenizer.encode_with_offsets(
            [example.text for example in examples], add_special_tokens=False
        )
        found, sources = list[LabelledText](), list[int]()
        size = _text_tokens(self.encoder)
        for number, (example, (ids, offsets)) in enumerate(zip(examples, encoded, strict=True)):
            spans = windows(len(ids), size, self.stride) if len(ids) > size else []
            parts = [example.text[offsets[a][0] : offsets[b - 1][1]] for a, b in spans]
            found += [replace(example, text=part) for part in parts] or [example]
            sources += [number] * max(len(parts), 1)
        return found, np.array(sources)

    def read(
        self, examples: Sequence[LabelledText], counts: EncodingCounts | None = None
    ) -> list[list[list[int]]]:
        """Return the token ids of each example's text, or of both its texts.

        Args:
            examples: The examples.
            counts: Updated with the numbers of texts read and truncated.

        Raises:
            InputError: An example is a pair and the classifier expects single texts, or the
                reverse.
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
        """Return the label scores of rows from `read`. Shape: (texts, labels)."""
        scores: Tensor = self.head(self.features(rows, language_loss=False)[0])
        return scores

    def features(
        self, rows: Sequence[Sequence[Sequence[int]]], *, language_loss: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the input of the head for rows, and the language-model loss of the texts.

        Shape: (texts, width), and a scalar: the sum over the texts, see `next_token_loss`.

        Args:
            rows: What `read` returned.
            language_loss: Whether to compute the loss.
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
        return torch.cat(sides, -1), torch.stack(losses).sum()


def _text_tokens(encoder: Encoder) -> int:
    """Return the number of tokens that an encoder reads of a text, without special tokens."""
    template = encoder.reader.template
    return encoder.max_length - len(template.before) - len(template.after)
