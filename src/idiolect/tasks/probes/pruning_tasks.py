"""Tasks for head pruning: a loss that defines importance, and a metric of the damage.

language   a model with a language-model head predicts tokens: the next one, or masked ones
halves     an encoder without such a head retrieves the second half of a text by its first
labels     a trained classifier names labels
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import InputError
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.probes.layer_states import equal_lengths

__all__ = ["PruningTask", "classifier_task", "halves_task", "language_task", "usual_task"]

_Batch = TypeVar("_Batch")
_TEMPERATURE = 0.05
_MASKED = 0.15


@dataclass(frozen=True)
class PruningTask:
    """A loss that defines head importance, and a metric of the damage that pruning does."""

    measure_name: str
    """Name of the metric that `measure` returns."""
    higher_is_better: bool
    """Whether a higher value is better."""
    batches: list[Callable[[], Tensor]]
    """The loss summed over the texts of a batch; all have the same length."""
    measure: Callable[[], float]
    """Returns the metric on other texts."""


def usual_task(encoder: Encoder, texts: Sequence[str], test: Sequence[str]) -> PruningTask:
    """Return the task that needs no labels: `language` if the model has the head, or `halves`."""
    network = encoder.model.network
    masks = encoder.model.tokenizer.mask_token_id is not None
    reads_once = network.kind != "encoder-decoder" and not encoder.bidirectional
    if network.has_language_head and reads_once and (network.kind == "causal" or masks):
        return language_task(encoder, texts, test)
    return halves_task(encoder, texts, test)


def language_task(encoder: Encoder, texts: Sequence[str], test: Sequence[str]) -> PruningTask:
    """Return the task of predicting tokens: the next one, or 15 % that are masked.

    Args:
        encoder: An encoder whose network has a language-model head.
        texts: Texts that determine head importance.
        test: Texts that the metric is computed on.
    """
    network, mask_id = encoder.model.network, encoder.model.tokenizer.mask_token_id
    causal = network.kind == "causal"

    def loss(ids: Tensor) -> tuple[Tensor, int]:
        if causal:
            hidden, read, goal = network.text_states(ids, None)[:, :-1], None, ids[:, 1:]
        else:
            # Mask the same positions in texts of equal length, so that all pruned models see the
            # same.
            drawn = torch.rand(ids.shape, generator=torch.Generator().manual_seed(ids.shape[1]))
            read = (drawn < max(_MASKED, 1 / ids.shape[1])).to(ids.device)
            assert mask_id is not None
            hidden, goal = network.text_states(ids.masked_fill(read, mask_id), None), ids
        hidden, goal = (
            (hidden.flatten(0, 1), goal.flatten())
            if read is None
            else (
                hidden[read],
                goal[read],
            )
        )
        scores = network.score_vocabulary(hidden).float()
        return F.cross_entropy(scores, goal, reduction="sum"), len(goal)

    rows, test_rows = (_rows(encoder, some) for some in (texts, test))
    few = 512 if network.config.vocab_size > 20_000 else 2048

    def measure() -> float:
        total, count = 0.0, 0
        with torch.inference_mode():
            for _, ids in equal_lengths(test_rows, few):
                value, tokens = loss(ids.to(network.device))
                total, count = total + float(value), count + tokens
        return total / max(count, 1)

    return PruningTask(
        "loss of the next token (nats)" if causal else "loss of a masked token (nats)",
        False,
        [
            _bind(lambda i: loss(i.to(network.device))[0], ids)
            for _, ids in equal_lengths(rows, few)
        ],
        measure,
    )


def halves_task(encoder: Encoder, texts: Sequence[str], test: Sequence[str]) -> PruningTask:
    """Return the task of retrieving the second half of a text by its first, by cosine.

    Args:
        encoder: The encoder.
        texts: Texts that determine head importance.
        test: Texts that the metric is computed on.

    Raises:
        InputError: There are fewer than ten texts of eight tokens.
    """
    template = encoder.reader.template

    def framed(ids: list[int]) -> list[int]:
        return [*template.before, *ids, *template.after]

    def halves(some: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        inner = [
            row[len(template.before) : len(row) - len(template.after)]
            for row in _rows(encoder, some)
        ]
        # Cut lengths to multiples of eight tokens, so that enough texts have equal length.
        cut = [row[: min(len(row) // 8 * 8, 64)] for row in inner if len(row) >= 8]
        if len(cut) < 10:
            raise InputError(f"{len(cut)} texts have eight tokens", hint="give at least 10")
        return [(framed(row[: len(row) // 2]), framed(row[len(row) // 2 :])) for row in cut]

    pairs, test_pairs = halves(texts), halves(test)

    def loss(numbers: Sequence[int]) -> Tensor:
        first, second = (
            F.normalize(encoder.pooled_rows([pairs[i][side] for i in numbers]).float(), dim=-1)
            for side in (0, 1)
        )
        scores = first @ second.T / _TEMPERATURE
        return F.cross_entropy(scores, torch.arange(len(scores)).to(scores.device), reduction="sum")

    def measure() -> float:
        with torch.inference_mode():
            sides = []
            for side in (0, 1):
                rows = [pair[side] for pair in test_pairs]
                found = torch.zeros(len(rows), encoder.dimensions)
                for numbers, _ in equal_lengths(rows):
                    found[numbers] = encoder.pooled_rows([rows[i] for i in numbers]).float().cpu()
                sides.append(F.normalize(found, dim=-1))
        scores = sides[0] @ sides[1].T
        ranks = (scores >= scores.diagonal()[:, None]).sum(1)
        return float((1 / ranks).mean())

    return PruningTask(
        "mean reciprocal rank of a text's second half",
        True,
        [
            _bind(loss, numbers)
            for numbers, _ in equal_lengths([first for first, _ in pairs], 1024)
            if len(numbers) > 1
        ],
        measure,
    )


def classifier_task(
    classifier: TextClassifier, examples: Sequence[LabelledText], test: Sequence[LabelledText]
) -> PruningTask:
    """Return the task of a trained classifier.

    Args:
        classifier: The classifier of single texts.
        examples: Texts that determine head importance.
        test: Texts that the metric is computed on.

    Raises:
        InputError: A label is unknown, or the examples are pairs.
    """
    truth, goal = classifier.numbers(examples), classifier.numbers(test)
    rows = [ids for [ids] in classifier.read(examples)]

    def loss(numbers: Sequence[int]) -> Tensor:
        scores = classifier.logits([[rows[i]] for i in numbers]).float()
        labels = torch.from_numpy(truth[list(numbers)]).to(scores.device)
        return F.cross_entropy(scores, labels, reduction="sum")

    def measure() -> float:
        return float((classifier.probabilities(test).argmax(1) == goal).mean())

    return PruningTask(
        "accuracy of the classifier",
        True,
        [_bind(loss, numbers) for numbers, _ in equal_lengths(rows)],
        measure,
    )


def _rows(encoder: Encoder, texts: Sequence[str]) -> list[list[int]]:
    return [row for row in encoder.reader.read(list(texts), None, EncodingCounts()) if len(row) > 1]


def _bind(loss: Callable[[_Batch], Tensor], batch: _Batch) -> Callable[[], Tensor]:
    return lambda: loss(batch)
