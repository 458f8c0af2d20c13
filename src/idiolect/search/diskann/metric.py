"""The metrics of an index: cosine, inner product or Euclidean distance."""

from __future__ import annotations

from typing import Literal

__all__ = ["METRICS", "Metric"]

Metric = Literal["cosine", "inner", "l2"]
"""Nearest means the largest cosine or inner product, or the smallest Euclidean distance."""

METRICS: dict[Metric, int] = {"cosine": 0, "inner": 1, "l2": 2}
"""The number of each metric in kernels and files."""
