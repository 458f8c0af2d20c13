"""Anisotropy: how similar in direction the states of different texts are, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.tasks.probes.layer_states import states_by_layer

__all__ = ["Anisotropy", "measure_anisotropy"]


@dataclass(frozen=True)
class Anisotropy:
    """Means over pairs of texts: one for the embedding, then one for each layer."""

    tokens: list[float]
    """Cosine of random tokens of two texts (Ethayarajh 2019, 1909.00512)."""
    texts: list[float]
    """Cosine of the mean states of two texts."""
    centered: list[float]
    """Cosine of random tokens after the mean of all states is subtracted."""
    largest: list[float]
    """Share of the variance of random tokens along the first principal component."""


def measure_anisotropy(encoder: Encoder, texts: Sequence[str], *, seed: int = 0) -> Anisotropy:
    """Measure the states of texts: one random token of each, and their means.

    Args:
        encoder: The encoder.
        texts: The texts.
        seed: Random seed of the tokens.
    """
    rows = encoder.reader.read(list(texts), None, EncodingCounts())
    generator = torch.Generator().manual_seed(seed)
    tokens: list[list[Tensor]] = []
    means: list[list[Tensor]] = []
    before, after = len(encoder.reader.template.before), len(encoder.reader.template.after)
    for batch in states_by_layer(encoder, rows):
        count, length = batch.input_ids.shape
        real = max(length - before - after, 1)
        place = min(before, length - 1) + torch.randint(real, (count,), generator=generator)
        tokens.append([s[torch.arange(count), place].float().cpu() for s in batch.states])
        means.append([s.mean(1).float().cpu() for s in batch.states])
    by_layer = [torch.cat(parts) for parts in zip(*tokens, strict=True)]
    mean_by_layer = [torch.cat(parts) for parts in zip(*means, strict=True)]
    return Anisotropy(
        [_mean_cosine(layer) for layer in by_layer],
        [_mean_cosine(layer) for layer in mean_by_layer],
        [_mean_cosine(layer - layer.mean(0)) for layer in by_layer],
        [_largest_share(layer) for layer in by_layer],
    )


def _mean_cosine(vectors: Tensor) -> float:
    """Return the mean cosine over all pairs of different rows."""
    unit, count = F.normalize(vectors, dim=-1), len(vectors)
    own = float(unit.square().sum())
    return (float(unit.sum(0).square().sum()) - own) / max(count * (count - 1), 1)


def _largest_share(vectors: Tensor) -> float:
    values = torch.linalg.svdvals(vectors - vectors.mean(0)).square()
    return float(values[0] / values.sum().clamp(min=1e-12))
