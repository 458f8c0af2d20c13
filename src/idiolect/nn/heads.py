"""Task heads on top of the hidden states, and the pooler.

Token-level heads (`language`, `token`, `span`) read every hidden state; text-level heads
(`next_sentence`, `sequence`, `reward`) read the vector that `Pooler` computes for each text.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError, InputError
from idiolect.nn.basic import Dropout, Linear, activate, can_inspect, linear, make_norm, softcap
from idiolect.nn.config import Task, TransformerConfig
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.quantized_matrix import QuantizedMatrix

__all__ = [
    "LanguageHead",
    "NextSentenceHead",
    "Pooler",
    "RewardHead",
    "SequenceHead",
    "SpanHead",
    "TokenHead",
    "make_head",
]


class _TokenScores(nn.Module):
    """The common part of token-level heads: an optional dense layer, activation and norm.

    BERT's language-model head has it, and all of ModernBERT's heads.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = config.head_activation or config.activation
        self.dense = self.norm = None
        if config.head_transform:
            self.dense = Linear(
                config.hidden_size, config.hidden_size, bias=config.head_transform_bias
            )
            self.norm = make_norm(config)

    def transform(self, hidden: Tensor) -> Tensor:
        """Apply the layers before the scores. Shape: (…, width) to (…, width)."""
        if self.dense is None or self.norm is None:
            return hidden
        result: Tensor = self.norm(activate(self.activation, self.dense(hidden)))
        return result


class LanguageHead(_TokenScores):
    """Score every vocabulary entry at every position.

    A tied head shares the weights of the token embedding (Press & Wolf 2017, 1608.05859). BERT adds
    a dense layer, an activation and a norm before it, and a bias after it.
    """

    weight: nn.Parameter | ExtendedRows | QuantizedMatrix | None
    """The rows of an untied head; `None` if it is tied."""
    bias: nn.Parameter | ExtendedRows | None
    """Added to the scores."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.scale = config.output_scale
        self.softcap = config.logit_softcap
        self.weight = (
            None
            if config.tie_word_embeddings
            else nn.Parameter(torch.empty(config.vocab_size, config.hidden_size).normal_(std=0.02))
        )
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.head_bias else None

    def transform(self, hidden: Tensor) -> Tensor:
        """Apply the layers before the vocabulary rows. Shape: (…, width) to (…, width)."""
        hidden = super().transform(hidden)
        return hidden * self.scale if self.scale != 1.0 else hidden

    def forward(self, hidden: Tensor, rows: Tensor | ExtendedRows | QuantizedMatrix) -> Tensor:
        """Score the vocabulary.

        Shape: hidden (…, width), rows (vocabulary, width), result (…, vocabulary).

        Args:
            hidden: The network's hidden states.
            rows: The token embedding, for a tied head.
        """
        weight, bias = rows if self.weight is None else self.weight, self.bias
        hidden = self.transform(hidden)
        if isinstance(weight, ExtendedRows):
            assert not isinstance(bias, Tensor)
            logits = weight.score(hidden, bias)
        else:
            assert not isinstance(bias, ExtendedRows)
            logits = linear(hidden, weight, bias)
        return logits if self.softcap is None else softcap(logits, self.softcap)


class Pooler(nn.Module):
    """One vector per text: one of its tokens or their mean, then optionally dense and norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.kind = config.pool
        self.end_id = config.eos_token_id
        self.dense = None
        if config.pool_dense:
            self.dense = Linear(
                config.hidden_size, config.hidden_size, bias=config.head_transform_bias
            )
        self.activation = config.pool_activation
        self.norm = make_norm(config) if config.pool_norm else None
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Compute the vector of each text. Shape: (batch, length, width) to (batch, width)."""
        if self.kind == "first":
            picked = (
                hidden[:, 0] if mask is None else self._pick(hidden, (mask > 0).int().argmax(-1))
            )
        elif self.kind == "mean":
            real = torch.ones_like(ids) if mask is None else (mask > 0).long()
            picked = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        else:
            candidates = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask > 0
            if self.kind == "end":
                candidates = candidates & (ids == self.end_id)
                if can_inspect(ids) and not bool(candidates.any(-1).all()):
                    raise InputError(
                        f"a text has no end token (id {self.end_id})",
                        hint="encode texts with special tokens",
                    )
            position = torch.arange(ids.shape[1], device=ids.device)
            picked = self._pick(hidden, (position * candidates).argmax(-1))
        if self.dense is not None:
            picked = activate(self.activation, self.dense(picked))
        if self.norm is not None:
            picked = self.norm(picked)
        return picked

    @staticmethod
    def _pick(hidden: Tensor, position: Tensor) -> Tensor:
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), position]


class NextSentenceHead(nn.Module):
    """Classify whether the second text follows the first (BERT, 1810.04805)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.output = Linear(config.hidden_size, 2)

    def forward(self, pooled: Tensor) -> Tensor:
        """Score "follows" and "does not". Shape: (batch, width) to (batch, 2)."""
        scores: Tensor = self.output(pooled)
        return scores


class SequenceHead(nn.Module):
    """Classify a text."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.output = Linear(config.hidden_size, config.num_labels, bias=config.label_bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Score the classes. Shape: (batch, width) to (batch, labels)."""
        scores: Tensor = self.output(self.dropout(pooled))
        return scores


class TokenHead(_TokenScores):
    """Classify each token."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.dropout)
        self.output = Linear(config.hidden_size, config.num_labels)

    def forward(self, hidden: Tensor) -> Tensor:
        """Score the classes. Shape: (batch, length, width) to (batch, length, labels)."""
        scores: Tensor = self.output(self.dropout(self.transform(hidden)))
        return scores


class SpanHead(_TokenScores):
    """Score where an answer starts and ends (extractive question answering)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.output = Linear(config.hidden_size, 2)

    def forward(self, hidden: Tensor) -> Tensor:
        """Score each token as start and end. Shape: (batch, length, 2)."""
        scores: Tensor = self.output(self.transform(hidden))
        return scores


class RewardHead(nn.Module):
    """A scalar reward of a text (Ouyang et al. 2022, 2203.02155)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.output = Linear(config.hidden_size, 1, bias=config.label_bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Score the text. Shape: (batch, width) to (batch,)."""
        scores: Tensor = self.output(pooled)
        return scores.squeeze(-1)


_HEADS: dict[Task, type[nn.Module]] = {
    "language": LanguageHead,
    "next_sentence": NextSentenceHead,
    "sequence": SequenceHead,
    "token": TokenHead,
    "span": SpanHead,
    "reward": RewardHead,
}


def make_head(task: Task, config: TransformerConfig) -> nn.Module:
    """Build the head of a task.

    Raises:
        ConfigError: The task needs pooling and the configuration has none.
    """
    if task in ("next_sentence", "sequence", "reward") and config.pool == "none":
        raise ConfigError(f"the task {task!r} needs pooling", hint="set pool in the configuration")
    return _HEADS[task](config)
