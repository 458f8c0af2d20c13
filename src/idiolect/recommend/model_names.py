"""The recommenders by name, for the command line, files and Python.

Classes of networks are imported when they are used: the others need no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Literal

from idiolect.recommend.co_occurrence import Ease, ItemKnn, SessionKnn, Transitions
from idiolect.recommend.dense_text import DenseText
from idiolect.recommend.scorer import ItemScorer, Popularity, RecentPopularity
from idiolect.recommend.text_similarity import TextSimilarity

__all__ = ["BASELINES", "NETWORKS", "SCORERS", "ModelName"]

ModelName = Literal[
    "popularity", "transitions", "item-knn", "ease", "sasrec", "gru4rec", "bert4rec", "blend"
]
"""What can be trained."""

BASELINES: tuple[type[ItemScorer], ...] = (
    Popularity,
    RecentPopularity,
    Transitions,
    ItemKnn,
    SessionKnn,
    Ease,
)
"""What stands in every table."""
NETWORKS = ("sasrec", "gru4rec", "bert4rec")
"""What is trained by gradients."""


def _network(name: str) -> Callable[[], type[ItemScorer]]:
    def load() -> type[ItemScorer]:
        module = import_module("idiolect.recommend.networks.sequence_scorer")
        found: type[ItemScorer] = module.SEQUENCE_SCORERS[name]
        return found

    return load


def _plain(scorer: type[ItemScorer]) -> Callable[[], type[ItemScorer]]:
    return lambda: scorer


SCORERS: dict[str, Callable[[], type[ItemScorer]]] = {
    **{one.name: _plain(one) for one in BASELINES},
    TextSimilarity.name: _plain(TextSimilarity),
    DenseText.name: _plain(DenseText),
    **{name: _network(name) for name in NETWORKS},
}
"""A function that returns the class of each name."""
