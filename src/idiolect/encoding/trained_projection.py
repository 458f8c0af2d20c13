"""A linear map that trains behind a fixed projection, to tune a static encoder over kept rows.

The rows of the language model stay what they are, and the encoder learns what is done with their
mean: a matrix for all of them, instead of each row. It has few numbers, so it also moves tokens
that no training text has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.encoding.projection import Projection

__all__ = ["TrainedProjection", "new_matrix"]

_SCALE = 10.0
"""Size of the matrix at the start. Adam moves each number by about the learning rate. At this size,
a rate that suits the tokens' weights also suits the matrix; lengths do not matter."""


@dataclass(frozen=True)
class TrainedProjection(Projection):
    """A projection followed by a matrix that trains."""

    matrix: Tensor
    """A parameter. Shape: (out, out)."""

    @classmethod
    def of(cls, fixed: Projection | None, matrix: Tensor) -> Self:
        """Put a matrix behind a projection, or behind none."""
        if fixed is None:
            same = torch.eye(len(matrix), device=matrix.device)
            fixed = Projection(same, same.new_zeros(len(same)))
        return cls(fixed.weight, fixed.bias, matrix)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those of `folded`."""
        return self.folded().tensors

    def __call__(self, vectors: Tensor) -> Tensor:
        """Map vectors by both; see `Projection`."""
        return F.linear(super().__call__(vectors), self.matrix)

    def to(self, device: torch.device) -> Self:
        """Return it as it is: the matrix is a parameter of the network, and moves with it."""
        return self

    def folded(self) -> Projection:
        """Return both as one map."""
        matrix = self.matrix.detach()
        return Projection(matrix @ self.weight, matrix @ self.bias)


def new_matrix(dimensions: int, device: torch.device) -> nn.ParameterDict:
    """Return a module with a matrix that changes no direction. Shape: (dimensions, dimensions)."""
    return nn.ParameterDict({"matrix": nn.Parameter(_SCALE * torch.eye(dimensions, device=device))})
