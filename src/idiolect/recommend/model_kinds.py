"""Names of models and options, shared by the command line, configurations and Python.

Importing this module is cheap.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["ItemLoss", "ItemText", "ModelName", "SplitKind", "Target"]

ModelName = Literal[
    "popularity",
    "transitions",
    "item-knn",
    "session-knn",
    "ease",
    "als",
    "text",
    "text-dense",
    "sasrec",
    "gru4rec",
    "bert4rec",
    "unisrec",
    "two-tower",
    "blend",
    "lambdamart",
]
"""The models that can be trained."""

ItemText = Literal["alone", "added", "trained"]
"""How a network uses text embeddings of items: `alone`, mapped by an adaptor, without item
embeddings; `added` to a learned item embedding; or `trained`, as the initial item embeddings."""

ItemLoss = Literal["cross-entropy", "sampled-softmax", "bpr-max", "gbce"]
"""Cross-entropy over all items, or a loss over sampled negatives."""

Target = Literal["next-item", "next-basket"]
"""The prediction target of a case: the next item, or all items of the next basket (time)."""

SplitKind = Literal["time", "leave-one-out", "user"]
"""How histories are split into training, validation and test."""
