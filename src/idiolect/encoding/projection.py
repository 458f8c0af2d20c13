"""A linear map of pooled vectors: `Dense` in the layout of sentence-transformers.

It is fitted to the vectors of some texts, without qrels, in one of two ways:

rotated    to the principal axes, in order of decreasing variance. Inner products are unchanged, but
           the first dimensions contribute most to them, so vectors can be shortened, and training
           for short vectors (Matryoshka) starts from there.
whitened   also centered, and scaled to equal variance (Su et al. 2021, 2103.15316). The hidden
           states of a language model share one dominant direction, which makes all texts similar
           until it is removed. The vectors of a static model are scaled only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from idiolect.errors import CheckpointError
from idiolect.text.files import read_bytes, write_atomic

__all__ = ["Projection"]

_WEIGHT, _BIAS = "linear.weight", "linear.bias"
_FLOOR = 1e-2
"""Share of the mean variance added to each axis, so that noise is not amplified."""


@dataclass(frozen=True)
class Projection:
    """The map x ↦ W·x + b, in float32."""

    weight: Tensor
    """W. Shape: (out, in)."""
    bias: Tensor
    """b. Shape: (out,)."""

    @classmethod
    def fit(
        cls, vectors: NDArray[np.float32], *, whiten: bool = False, linear: bool = False
    ) -> Self:
        """Fit a map to vectors.

        Args:
            vectors: Vectors of some texts. Shape: (texts, dimensions).
            whiten: Also center and scale, which changes inner products.
            linear: Scale without centering, so that the map is linear (no bias). The direction that
                all vectors share is scaled down like any other, which nearly removes it.
        """
        exact = vectors.astype(np.float64)
        centered = whiten and not linear
        center = exact.mean(0) if centered else np.zeros(exact.shape[1])
        spread = exact - center
        variances, axes = np.linalg.eigh(spread.T @ spread / max(len(spread), 1))
        weight = axes[:, ::-1].T
        if whiten:
            floor = _FLOOR * variances.mean() or 1.0  # identical vectors are unchanged
            weight = weight / np.sqrt(np.maximum(variances[::-1], 0) + floor)[:, None]
        return cls(_tensor(weight), _tensor(-weight @ center))

    @property
    def dimensions(self) -> int:
        """Width of the result."""
        return len(self.weight)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Weight and bias by their names in the file."""
        return {_WEIGHT: self.weight, _BIAS: self.bias}

    def __call__(self, vectors: Tensor) -> Tensor:
        """Map vectors; zero vectors, those of texts without tokens, stay zero.

        Shape: (texts, in) to (texts, out), float32.
        """
        nonzero = (vectors != 0).any(-1, keepdim=True)
        return F.linear(vectors.float(), self.weight, self.bias) * nonzero

    def to(self, device: torch.device) -> Self:
        """Return a copy on a device."""
        return type(self)(self.weight.to(device), self.bias.to(device))

    def after(self, first: Projection | None) -> Self:
        """Return the composition of another map, applied first, with this one."""
        if first is None:
            return self
        bias = self.weight @ first.bias + self.bias
        return type(self)(self.weight @ first.weight, bias)

    def save(self, path: Path) -> None:
        """Write weight and bias as safetensors, atomically."""
        write_atomic(path, save({name: own.cpu() for name, own in self.tensors.items()}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load a file that `save` or sentence-transformers wrote.

        Raises:
            CheckpointError: The file is missing or damaged, or is not a linear map.
        """
        try:
            tensors = load(read_bytes(path))
            weight = tensors[_WEIGHT].float()
            bias = tensors.get(_BIAS, torch.zeros(len(weight))).float()
        except (SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged: {error}", hint="save it again") from error
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise CheckpointError(f"{path} is not a linear map", hint="save it again")
        return cls(weight, bias)


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
