"""Linear probe: multinomial logistic regression on the states of a frozen network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["LinearProbe"]


class LinearProbe:
    """Predict classes from standardised features (Alain & Bengio 2016, 1610.01644).

    It minimises the mean cross-entropy plus `penalty` times the squared weights, by L-BFGS. The
    problem is convex, so there is one solution and no seed.

    Args:
        features: One row for each example. (examples, width).
        labels: The classes. (examples,), int64.
        classes: Number of classes.
        penalty: L2 regularisation strength.
    """

    def __init__(
        self,
        features: Tensor,
        labels: NDArray[np.int64],
        classes: int,
        *,
        penalty: float = 1e-3,
    ) -> None:
        self._mean = features.mean(0)
        self._scale = features.std(0).clamp(min=1e-6)
        x, truth = (features - self._mean) / self._scale, torch.from_numpy(labels)
        self._linear = nn.Linear(features.shape[1], classes)
        nn.init.zeros_(self._linear.weight)
        nn.init.zeros_(self._linear.bias)
        optimizer = torch.optim.LBFGS(
            self._linear.parameters(), max_iter=60, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(self._linear(x), truth)
            loss = loss + penalty * self._linear.weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]

    def predict(self, features: Tensor) -> NDArray[np.int64]:
        """Return the class of each row."""
        with torch.no_grad():
            scores = self._linear((features - self._mean) / self._scale)
        found: NDArray[np.int64] = scores.argmax(1).numpy()
        return found

    def accuracy(self, features: Tensor, labels: NDArray[np.int64]) -> float:
        """Return the share of rows whose class is predicted correctly."""
        return float((self.predict(features) == labels).mean())
