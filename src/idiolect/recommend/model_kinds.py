"""The names that the command line, configurations and Python share; importing them is cheap."""

from __future__ import annotations

from typing import Literal

__all__ = ["ItemText", "ModelName", "SplitKind"]

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

ItemText = Literal["alone", "added"]
"""How a network reads the vectors of the items' texts: as the items' only vectors, through an
adaptor, or added to a vector that is learned for each item."""

SplitKind = Literal["time", "leave-one-out", "user"]
"""How histories are divided."""
