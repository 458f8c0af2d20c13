"""The names that the command line, configurations and Python share; importing them is cheap."""

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
"""What can be trained."""

ItemText = Literal["alone", "added", "trained"]
"""How a network reads the vectors of the items' texts: as the items' only vectors, through an
adaptor; added to a vector that is learned for each item; or as only vectors that are trained."""

ItemLoss = Literal["cross-entropy", "sampled-softmax", "bpr-max", "gbce"]
"""Cross-entropy over all items, or a loss over sampled negatives."""

Target = Literal["next-item", "next-basket"]
"""What a case asks for: the next item, or all items of the next moment, such as an order's."""

SplitKind = Literal["time", "leave-one-out", "user"]
"""How histories are divided."""
