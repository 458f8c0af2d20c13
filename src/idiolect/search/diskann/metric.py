"""What "nearest" means in an index: cosine, inner product or Euclidean distance."""

from __future__ import annotations

from typing import Literal

__all__ = ["METRICS", "Metric"]

Metric = Literal["cosine", "inner", "l2"]
"""The largest cosine or inner product, or the smallest Euclidean distance."""

METRICS: dict[Metric, int] = {"cosine": 0, "inner": 1, "l2": 2}
"""The metrics, and the numbers by which kernels know them."""
