"""The recommenders by name, for the command line, files and Python.

Network classes are imported on first use, since the other recommenders do not need torch.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from idiolect.recommend.scorer import ItemScorer, Popularity, RecentPopularity
from idiolect.recommend.scorers.co_occurrence import (
    Ease,
    FirstOrderTransitions,
    ItemKnn,
    SessionKnn,
    Transitions,
)
from idiolect.recommend.scorers.dense_text import DenseText
from idiolect.recommend.scorers.matrix_factors import Als
from idiolect.recommend.scorers.text_similarity import TextSimilarity

__all__ = ["BASELINES", "COMBINED", "NETWORKS", "SCORERS"]

BASELINES: tuple[type[ItemScorer], ...] = (
    Popularity,
    RecentPopularity,
    FirstOrderTransitions,
    Transitions,
    ItemKnn,
    SessionKnn,
    Ease,
    Als,
)
"""The baselines, which are part of every evaluation."""
NETWORKS = ("sasrec", "gru4rec", "bert4rec", "unisrec", "two-tower")
"""The models that are trained by gradient descent."""
COMBINED = (*(one.name for one in BASELINES if one is not Popularity), "sasrec")
"""The parts of a combination, besides the text-based recommenders."""


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
