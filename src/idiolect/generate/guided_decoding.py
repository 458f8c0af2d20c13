"""Contrastive scores: against a negative prompt, a weaker model, or earlier layers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from idiolect.errors import ConfigError
from idiolect.generate.decoding import Decoding
from idiolect.nn.network import Network
from idiolect.nn.transformer import Transformer

__all__ = [
    "ContrastingDecoding",
    "GuidedDecoding",
    "LayerContrast",
    "contrast_scores",
    "guide_scores",
]

_PLAUSIBLE = math.log(0.1)
"""Tokens less likely than this fraction of the most likely one are excluded."""


class _PairedDecoding(Decoding, ABC):
    """Two batches that read the same new tokens."""

    def __init__(self, own: Decoding, other: Decoding) -> None:
        self.own, self.other = own, other

    def keep_attention(self) -> None:
        self.own.keep_attention()

    @property
    def attention(self) -> Tensor | None:  # type: ignore[override]
        return self.own.attention

    @abstractmethod
    def combine(self, own: Tensor, other: Tensor) -> Tensor:
        """Combine the scores of both batches. Shapes: (rows, vocab_size)."""

    def start(self) -> Tensor:
        return self.combine(self.own.start(), self.other.start())

    def step(self, tokens: Tensor) -> Tensor:
        return self.combine(self.own.step(tokens), self.other.step(tokens))

    def select(self, rows: Tensor) -> None:
        self.own.select(rows)
        self.other.select(rows)

    def select_beams(self, rows: Tensor, texts: Tensor | None = None) -> None:
        self.own.select_beams(rows, texts)
        self.other.select_beams(rows, texts)


class GuidedDecoding(_PairedDecoding):
    """Classifier-free guidance: move log-probabilities away from those of a negative prompt.

    Args:
        own: The prompts.
        other: The negative prompts.
        scale: Guidance scale; 1 changes nothing, 1.5 is a usual value.
    """

    def __init__(self, own: Decoding, other: Decoding, scale: float) -> None:
        super().__init__(own, other)
        self.scale = scale

    def combine(self, own: Tensor, other: Tensor) -> Tensor:
        """Return the guided scores."""
        return guide_scores(own, other, scale=self.scale)


class ContrastingDecoding(_PairedDecoding):
    """Contrastive decoding: prefer tokens that a weaker model finds less likely (2210.15097)."""

    def combine(self, own: Tensor, other: Tensor) -> Tensor:
        """Return the difference of log-probabilities, for plausible tokens only."""
        return contrast_scores(own, other)


class LayerContrast(Decoding):
    """DoLa: contrast the last layer with the earlier layer that differs most from it.

    It is computed as in the authors' code and transformers 4.55.4 (Chuang et al. 2023, 2309.03883),
    separately for each row. The head is applied to early hidden states without the final norm.
    The divergence is KL(M ‖ P) + KL(M ‖ Q); the paper has the Jensen–Shannon divergence, with the
    arguments of KL swapped. See docs/generation.md.

    Args:
        network: A Transformer.
        input_ids: As in `Decoding`.
        attention_mask: As in `Decoding`.
        layers: The earlier layers of the decoder, counted from 1; 0 is the embedding.
        vocab_size: As in `Decoding`.

    Raises:
        ConfigError: There is no such layer, or the network is not a Transformer.
    """

    def __init__(
        self,
        network: Network,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        layers: Sequence[int],
        vocab_size: int | None = None,
    ) -> None:
        super().__init__(network, input_ids, attention_mask, vocab_size=vocab_size)
        if not isinstance(network, Transformer) or network.decoder is None:
            raise ConfigError(
                "dola_layers contrasts layers of a Transformer's decoder, which this model lacks",
                hint="omit it",
            )
        self._decoder = network.decoder
        count = len(self._decoder.layers)
        if wrong := [layer for layer in layers if not 0 <= layer < count]:
            raise ConfigError(
                f"there is no earlier layer {wrong[0]}", hint=f"choose from 0 to {count - 1}"
            )
        self.layers = tuple(layers)

    def _read(self, ids: Tensor) -> Tensor:
        states: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(module: Any, inputs: tuple[Any, ...], output: Any = None) -> None:
                states[layer] = (inputs[0] if output is None else output)[:, -1]

            return hook

        blocks = self._decoder.layers
        handles = [
            blocks[layer - 1].register_forward_hook(keep(layer))
            if layer
            else blocks[0].register_forward_pre_hook(keep(0))
            for layer in self.layers
        ]
        try:
            hidden = super()._read(ids)
        finally:
            for handle in handles:
                handle.remove()
        self._early = torch.stack([states[layer] for layer in self.layers])
        return hidden

    def score(self, hidden_states: Tensor) -> Tensor:
        """Return the contrasted scores of the last states. (rows, width) to (rows, vocabulary)."""
        final = super().score(hidden_states).log_softmax(-1)
        early = super().score(self._early).log_softmax(-1)
        mean = (final.exp() + early.exp()) / 2
        # Tokens whose probabilities are rounded to zero contribute nothing.
        divergence = (2 * torch.xlogy(mean, mean) - mean * (final + early)).sum(-1)
        chosen = divergence.argmax(0)
        return _contrast(final, early[chosen, torch.arange(len(final), device=final.device)])


def guide_scores(own: Tensor, other: Tensor, *, scale: float) -> Tensor:
    """Move log-probabilities away from those of `other`. Shapes: (rows, vocabulary)."""
    other = other.log_softmax(-1)
    return other + scale * (own.log_softmax(-1) - other)


def contrast_scores(own: Tensor, other: Tensor) -> Tensor:
    """Return the difference of log-probabilities for plausible tokens; others get -inf.

    Shapes: (rows, vocabulary).
    """
    return _contrast(own.log_softmax(-1), other.log_softmax(-1))


def _contrast(own: Tensor, other: Tensor) -> Tensor:
    implausible = own < own.amax(-1, keepdim=True) + _PLAUSIBLE
    return (own - other).masked_fill(implausible, float("-inf"))
