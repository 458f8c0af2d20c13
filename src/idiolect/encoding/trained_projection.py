"""A trainable linear map after a fixed projection, to tune a static encoder with frozen rows.

The embedding rows of the language model are frozen. Instead, the encoder learns one matrix that is
applied to their mean. It has few parameters, and it also affects tokens that do not occur in the
training texts.
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
"""Scale of the initial matrix (a multiple of the identity). Adam changes each element by about the
learning rate; at this scale, a rate that suits the token weights also suits the matrix. Vectors are
compared by direction, so the scale itself does not matter."""


@dataclass(frozen=True)
class TrainedProjection(Projection):
    """A fixed projection followed by a trainable matrix."""

    matrix: Tensor
    """A parameter. Shape: (out, out)."""

    @classmethod
    def of(cls, fixed: Projection | None, matrix: Tensor) -> Self:
        """Append a matrix to a projection, or to the identity if there is none."""
        if fixed is None:
            same = torch.eye(len(matrix), device=matrix.device)
            fixed = Projection(same, same.new_zeros(len(same)))
        return cls(fixed.weight, fixed.bias, matrix)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of `folded`."""
        return self.folded().tensors

    def __call__(self, vectors: Tensor) -> Tensor:
        """Apply the projection, then the matrix; see `Projection`."""
        return F.linear(super().__call__(vectors), self.matrix)

    def to(self, device: torch.device) -> Self:
        """Return it unchanged: the matrix is a parameter of the network, and moves with it."""
        return self

    def folded(self) -> Projection:
        """Return the composition of both as one map."""
        matrix = self.matrix.detach()
        return Projection(matrix @ self.weight, matrix @ self.bias)


def new_matrix(dimensions: int, device: torch.device) -> nn.ParameterDict:
    """Return a module with a scaled identity matrix. Shape: (dimensions, dimensions)."""
    return nn.ParameterDict({"matrix": nn.Parameter(_SCALE * torch.eye(dimensions, device=device))})
