"""Batches of prompts with completions: one completion, or the two sides of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from idiolect.nn.network import Network, Output
from idiolect.training.data.batch import IGNORE_INDEX, Batch
from idiolect.training.objectives.token_log_probs import network_log_probs

__all__ = ["CompletionBatch", "EncodedCompletion", "TextScores", "score_texts", "used_length"]


@dataclass(frozen=True)
class EncodedCompletion:
    """The token ids of a prompt and its completion, which form one text."""

    prompt_ids: list[int]
    completion_ids: list[int]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, kw_only=True)
class CompletionBatch(Batch):
    """Texts of examples: `input_ids`, `attention_mask` and `labels` are (examples, sides, length).

    A label is the next token. Tokens of a prompt have labels only if they are predicted as well.
    """

    completion: Tensor
    """Which labels belong to the completion. (examples, sides, length), bool."""
    reference: Tensor
    """The reference model's log-probability of each completion. (examples, sides)."""
    good: Tensor
    """Whether a judged completion is good. (examples,), bool."""
    divergence: Tensor
    """KTO's KL estimate of the whole step. (examples,)."""
    token_weight: Tensor
    """Examples divided by labelled tokens of the chosen texts, in the whole step. (examples,)."""
    measured: bool = False
    """Whether to compute only the log-ratios, without a loss."""

    @classmethod
    def of(
        cls,
        examples: Sequence[Sequence[EncodedCompletion]],
        *,
        pad_id: int = 0,
        label_prompts: bool = False,
        reference: Tensor | None = None,
        good: Sequence[bool] = (),
    ) -> Self:
        """Pad texts on the right and label them.

        Args:
            examples: The sides of each example.
            pad_id: Padding token; masked, so any id will do.
            label_prompts: Label the tokens of the first sides' prompts as well.
            reference: The reference model's log-probabilities; by default zero.
            good: Whether each example is good; by default all are.
        """
        sides = len(examples[0])
        shape = (len(examples), sides, max(len(text) for one in examples for text in one))
        ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
        labels, own = np.full(shape, IGNORE_INDEX, np.int64), np.zeros(shape, bool)
        for place, one in enumerate(examples):
            for side, text in enumerate(one):
                whole, first = [*text.prompt_ids, *text.completion_ids], len(text.prompt_ids)
                ids[place, side, : len(whole)], mask[place, side, : len(whole)] = whole, 1
                start = 1 if label_prompts and side == 0 else max(1, first)
                labels[place, side, start - 1 : len(whole) - 1] = whole[start:]
                own[place, side, max(1, first) - 1 : len(whole) - 1] = True
        count = max(1, int((labels[:, 0] != IGNORE_INDEX).sum()))
        return cls(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            labels=torch.from_numpy(labels),
            completion=torch.from_numpy(own),
            reference=torch.zeros(shape[:2]) if reference is None else reference.float(),
            good=torch.tensor(list(good) or [True] * len(examples)),
            divergence=torch.zeros(len(examples)),
            token_weight=torch.full((len(examples),), len(examples) / count),
        )

    @property
    def count(self) -> int:
        """Number of examples: the loss is a sum over them."""
        return len(self)

    def with_divergence(self, value: float) -> Self:
        """Return the batch with the KL estimate of the step."""
        return replace(self, divergence=torch.full_like(self.divergence, value))

    def side(self, number: int) -> Self:
        """Return the batch with only one side of each example."""
        names = ("input_ids", "attention_mask", "labels", "completion", "reference")
        return replace(self, **{name: getattr(self, name)[:, number, None] for name in names})


@dataclass(frozen=True)
class TextScores:
    """Log-probabilities of a batch of texts. Shape: all (examples, sides)."""

    log_probs: Tensor
    """Log-probability of each completion, summed over its tokens."""
    lengths: Tensor
    """Tokens of each completion."""
    labelled: Tensor
    """Log-probability of all labelled tokens, including those of prompts."""
    entropy: Tensor
    """Mean entropy of the predictions, in nats. No gradient."""


def used_length(mask: Tensor) -> int:
    """Return the length up to the last column with text. Shape: (rows, length)."""
    return int((mask > 0).any(0).nonzero().amax()) + 1


def score_texts(network: Network, batch: CompletionBatch) -> TextScores:
    """Return the log-probabilities of completions. Padding is neither read nor scored."""
    assert batch.labels is not None
    shape = batch.labels.shape
    longest = used_length(batch.attention_mask.flatten(0, 1))
    ids, mask, labels, own = (
        grid.flatten(0, 1)[:, :longest]
        for grid in (batch.input_ids, batch.attention_mask, batch.labels, batch.completion)
    )
    output: Output = network(ids, mask, return_logits=False)
    predicted = labels != IGNORE_INDEX
    logs, entropy = network_log_probs(network, output.hidden_states[predicted], labels[predicted])
    rows, of_completion = predicted.nonzero()[:, 0], own[predicted]

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(len(ids)).index_add(0, rows, values).view(shape[:2])

    lengths = total(of_completion.to(logs))
    return TextScores(
        log_probs=total(logs * of_completion),
        lengths=lengths,
        labelled=total(logs),
        entropy=total(entropy * of_completion) / lengths.clamp(min=1),
    )
