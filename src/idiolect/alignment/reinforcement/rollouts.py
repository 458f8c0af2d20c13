"""Sampled completions as a batch with everything that a policy update needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from idiolect.alignment.preference.completion_batch import (
    CompletionBatch,
    EncodedCompletion,
    used_length,
)
from idiolect.nn.network import Network, Output
from idiolect.training.data.batch import Batch
from idiolect.training.objectives.token_log_probs import network_log_probs

__all__ = ["PolicyBatch", "TokenScores", "score_tokens"]


@dataclass(frozen=True, kw_only=True)
class PolicyBatch(Batch):
    """Prompts with completions. All tensors but `input_ids` refer to the next token.

    Token-wise tensors are (completions, length) and zero outside the completions.
    """

    old_log_probs: Tensor
    """Log-probability under the policy at the rollout."""
    reference: Tensor
    """Log-probability under the reference."""
    values: Tensor
    """Value before each token, at the rollout."""
    advantages: Tensor
    returns: Tensor
    weight: Tensor
    """Weight of each token in the loss."""
    targets: int = 1
    """Divisor of the summed loss."""

    @classmethod
    def of(cls, texts: Sequence[EncodedCompletion], *, pad_id: int = 0) -> Self:
        """Pad texts on the right and label their completions."""
        made = CompletionBatch.of([[text] for text in texts], pad_id=pad_id)
        assert made.labels is not None
        ids, mask, labels = (
            grid[:, 0] for grid in (made.input_ids, made.attention_mask, made.labels)
        )
        zeros = torch.zeros(ids.shape)
        return cls(
            input_ids=ids,
            attention_mask=mask,
            labels=labels,
            old_log_probs=zeros,
            reference=zeros,
            values=zeros,
            advantages=zeros,
            returns=zeros,
            weight=zeros,
        )

    @property
    def count(self) -> int:
        """Divisor of the summed loss."""
        return self.targets

    def rows(self, numbers: Sequence[int]) -> Self:
        """Return the completions with the given indices."""
        own = torch.tensor(numbers)
        return self._map(lambda tensor: tensor[own])

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, for a checkpoint."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the batch of `tensors`."""
        return cls(**tensors)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TokenScores:
    """Outputs of a network for the tokens of all completions, concatenated. (tokens,)."""

    log_probs: Tensor
    entropy: Tensor
    hidden: Tensor
    """The hidden states that predict the tokens. (tokens, width)."""


def score_tokens(network: Network, batch: Batch, temperature: float) -> TokenScores:
    """Return log-probability and entropy of each labelled token. Padding is not read."""
    assert batch.labels is not None
    longest = used_length(batch.attention_mask)
    ids, mask = batch.input_ids[:, :longest], batch.attention_mask[:, :longest]
    output: Output = network(ids, mask, return_logits=False)
    predicted = batch.predicted[:, :longest]
    hidden = output.hidden_states[predicted]
    labels = batch.labels[:, :longest][predicted]
    logs, entropy = network_log_probs(network, hidden, labels, temperature=temperature)
    return TokenScores(logs, entropy, hidden)
