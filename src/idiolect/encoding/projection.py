"""A linear map of pooled vectors: `Dense` in the layout of sentence-transformers.

It is fitted to vectors of some texts, without judgements, in one of two ways:

turned     to the principal axes, those along which vectors differ most first. All inner products
           stay as they are, but the first dimensions now hold most of them, so that vectors can be
           cut short, and training for short vectors (Matryoshka) starts from there.
whitened   (Su et al. 2021, 2103.15316) also centred, and scaled so that all axes count alike. The
           hidden states of a language model share one large direction, and all its texts look the
           same until that is taken out.
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
"""Of the mean variance: what an axis has at least, lest noise be scaled up."""


@dataclass(frozen=True)
class Projection:
    """The map x ↦ W·x + b, in float32."""

    weight: Tensor
    """Shape: (out, in)."""
    bias: Tensor
    """Shape: (out,)."""

    @classmethod
    def fit(cls, vectors: NDArray[np.float32], *, whiten: bool = False) -> Self:
        """Find the axes of vectors.

        Args:
            vectors: Of some texts, as the map will meet them. Shape: (texts, dimensions).
            whiten: Centre and scale as well; the product of two vectors changes then.
        """
        exact = vectors.astype(np.float64)
        centre = exact.mean(0) if whiten else np.zeros(exact.shape[1])
        spread = exact - centre
        variances, axes = np.linalg.eigh(spread.T @ spread / max(len(spread), 1))
        weight = axes[:, ::-1].T
        if whiten:
            floor = _FLOOR * variances.mean() or 1.0  # texts that are all the same stay as they are
            weight = weight / np.sqrt(np.maximum(variances[::-1], 0) + floor)[:, None]
        return cls(_tensor(weight), _tensor(-weight @ centre))

    @property
    def dimensions(self) -> int:
        """Of what it makes."""
        return len(self.weight)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Weight and bias by the names they are saved under."""
        return {_WEIGHT: self.weight, _BIAS: self.bias}

    def __call__(self, vectors: Tensor) -> Tensor:
        """Map vectors; zeros, which stand for a text without tokens, stay zeros.

        Shape: (texts, in) to (texts, out), float32.
        """
        there = (vectors != 0).any(-1, keepdim=True)
        return F.linear(vectors.float(), self.weight, self.bias) * there

    def to(self, device: torch.device) -> Self:
        """Return it on a device."""
        return type(self)(self.weight.to(device), self.bias.to(device))

    def after(self, first: Projection | None) -> Self:
        """Return the map that does another first, and then this."""
        if first is None:
            return self
        bias = self.weight @ first.bias + self.bias
        return type(self)(self.weight @ first.weight, bias)

    def save(self, path: Path) -> None:
        """Write weight and bias as safetensors, whole or not at all."""
        write_atomic(path, save({name: own.cpu() for name, own in self.tensors.items()}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save`, or sentence-transformers, wrote.

        Raises:
            CheckpointError: The file is missing or damaged, or holds something else.
        """
        try:
            tensors = load(read_bytes(path))
            weight = tensors[_WEIGHT].float()
            bias = tensors.get(_BIAS, torch.zeros(len(weight))).float()
        except (SafetensorError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged: {error}", hint="save it again") from error
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise CheckpointError(f"{path} holds no linear map", hint="save it again")
        return cls(weight, bias)


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
