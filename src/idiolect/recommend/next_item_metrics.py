"""Metrics of next-item recommendation over the full ranking; ties share their mean rank.

- Sampled metrics, which rank a target among a few sampled items, can change the order of models
  (Krichene & Rendle 2020, KDD), so they are not supported.
- A target's rank is 1 + the number of items with a higher score + half of the number of other items
  with the same score. If ties were not counted, a model with equal scores for all items would have
  rank 1 everywhere. A hidden item, with the score −∞, is ranked last.

HR@k is 1 if the rank of a target is at most k. nDCG@k is the sum of 1 / log2(rank + 1) over such
targets, divided by that of the ideal order. MRR@k is 1 / the best rank. Recall@k is the share of
targets with a rank of at most k; with one target, it equals the hit rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import ConfigError, InputError
from idiolect.recommend.scorer import ItemScorer, hide_seen
from idiolect.recommend.splits import Cases

__all__ = [
    "NextItemEvaluation",
    "case_values",
    "evaluate_scorer",
    "mean_ranks",
    "parse_metric",
    "rank_targets",
]

_AT_ONCE = 256
_LENGTHS = ((1, 2), (3, 5), (6, 10), (11, None))
"""History lengths that are reported separately."""


@dataclass(frozen=True)
class NextItemEvaluation:
    """The evaluation of a recommender on next-item cases."""

    ranks: NDArray[np.float64]
    """The rank of each target, from 1. Shape: (targets,)."""
    owners: NDArray[np.int64]
    """The case of each target. Shape: (targets,)."""
    cold: NDArray[np.bool_]
    """Whether no target of a case has a training event. Shape: (cases,)."""
    lengths: NDArray[np.int64]
    """Length of each case's history. Shape: (cases,)."""
    coverage: float
    """Catalogue coverage: share of all items that are in the top 10 of any case."""
    novelty: float
    """Novelty: mean of −log2(share of the training events) of the recommended items, in bits."""
    popularity_share: float
    """Share of the recommendations that are among the most popular 1% of the items."""

    def values(self, metric: str) -> NDArray[np.float64]:
        """Return a metric of each case, such as `ndcg@10`, `hr@10` or `mrr@10`."""
        return case_values(metric, self.ranks, self.owners, len(self.cold))

    def means(self, where: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Return the usual metrics, of all cases or of some."""
        names = ("ndcg@10", "hr@10", "mrr@10", "recall@20", "ndcg@20")
        chosen = slice(None) if where is None else where
        if where is not None and not where.any():
            return {}
        return {name: float(self.values(name)[chosen].mean()) for name in names}

    def figures(self) -> dict[str, object]:
        """Return everything as a JSON-serializable dict."""
        by_length = {}
        for low, high in _LENGTHS:
            where = (self.lengths >= low) & (self.lengths <= (high or np.inf))
            name = f"{low}-{high}" if high else f"{low}+"
            by_length[name] = {"cases": int(where.sum()), **self.means(where)}
        return {
            **self.means(),
            "coverage@10": self.coverage,
            "novelty@10": self.novelty,
            "popularity_share@10": self.popularity_share,
            "cold": {"cases": int(self.cold.sum()), **self.means(self.cold)},
            "warm": {"cases": int((~self.cold).sum()), **self.means(~self.cold)},
            "by_history_length": by_length,
        }


def parse_metric(name: str) -> tuple[str, int]:
    """Split the name of a metric.

    Raises:
        ConfigError: It is unknown, or a sampled metric.
    """
    if "sampled" in name:
        raise ConfigError(
            f"{name}: sampled metrics rank models differently from the full ranking",
            hint="use ndcg@10 over all items (Krichene & Rendle 2020)",
        )
    kind, _, cut = name.partition("@")
    if kind not in ("ndcg", "hr", "recall", "mrr") or not cut.isdigit() or not int(cut):
        raise ConfigError(f"unknown metric {name!r}", hint="such as ndcg@10, hr@10, mrr@10")
    return kind, int(cut)


def case_values(
    metric: str, ranks: NDArray[np.float64], owners: NDArray[np.int64], cases: int
) -> NDArray[np.float64]:
    """Return a metric of each case. Shape: ranks and owners (targets,), result (cases,)."""
    kind, cut = parse_metric(metric)
    hit = (ranks <= cut).astype(float)
    count = np.maximum(1, np.bincount(owners, minlength=cases))
    if kind == "recall":
        shares: NDArray[np.float64] = np.bincount(owners, hit, cases) / count
        return shares
    if kind == "ndcg":
        ideal = np.cumsum(1 / np.log2(np.arange(2, cut + 2)))
        gained = np.bincount(owners, hit / np.log2(ranks + 1), cases)
        gains: NDArray[np.float64] = gained / ideal[np.minimum(count, cut) - 1]
        return gains
    best = np.zeros(cases)
    np.maximum.at(best, owners, hit if kind == "hr" else hit / ranks)
    return best


def rank_targets(
    scores: NDArray[np.float32], targets: NDArray[np.int64], owners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the rank of each target. Shape: scores (cases, items), the others (targets,)."""
    if len(owners) == len(scores):  # one for each case
        return mean_ranks(scores, targets)
    parts = [
        mean_ranks(scores[owners[start : start + _AT_ONCE]], targets[start : start + _AT_ONCE])
        for start in range(0, len(targets), _AT_ONCE)
    ]
    return np.concatenate([*parts, np.zeros(0)])


def mean_ranks(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the rank of each target; ties share their mean rank.

    Shape: scores (cases, items), targets (cases,), result (cases,).

    Raises:
        InputError: A score is NaN, which no comparison would notice.
    """
    if np.isnan(scores).any():
        raise InputError("a recommender gave scores that are no numbers", hint="train it again")
    own = scores[np.arange(len(targets)), targets][:, None]
    higher, equal = (scores > own).sum(1), (scores == own).sum(1)
    # An item that is hidden is not recommended at all: it does not share a rank with other ones.
    ranks: NDArray[np.float64] = np.where(
        np.isneginf(own[:, 0]), float(scores.shape[1]), 1.0 + higher + (equal - 1) / 2
    )
    return ranks


def evaluate_scorer(
    scorer: ItemScorer, cases: Cases, counts: NDArray[np.int64], *, exclude_seen: bool
) -> NextItemEvaluation:
    """Rank all items for each case.

    Args:
        scorer: The recommender.
        cases: Histories and their next items.
        counts: Training events of each item. Shape: (items,).
        exclude_seen: Never recommend items of the history. A target in the history is ranked last.
    """
    ranks, recommended = [], np.zeros(len(counts), np.int64)
    for start in range(0, len(cases), _AT_ONCE):
        part = cases.part(np.arange(start, min(start + _AT_ONCE, len(cases))))
        contexts = part.contexts
        scores = scorer.score(contexts)
        if exclude_seen:
            hide_seen(scores, contexts)
        ranks.append(rank_targets(scores, part.targets, part.owners))
        top = min(10, scores.shape[1])
        best = np.argpartition(-scores, top - 1, axis=1)[:, :top]
        shown = best[np.take_along_axis(scores, best, 1) > -np.inf]  # a small catalogue runs out
        recommended += np.bincount(shown, minlength=len(counts))
    share = (counts + 1) / (counts.sum() + len(counts))  # finite for items without events
    popular = np.zeros(len(counts), bool)
    popular[np.argsort(-counts, kind="stable")[: max(1, len(counts) // 100)]] = True
    total = max(1, recommended.sum())
    return NextItemEvaluation(
        ranks=np.concatenate(ranks) if ranks else np.zeros(0),
        owners=cases.owners,
        cold=np.bincount(cases.owners, counts[cases.targets], len(cases)) == 0,
        lengths=np.array([len(context) for context in cases.contexts]),
        coverage=float((recommended > 0).mean()),
        novelty=float((recommended * -np.log2(share)).sum() / total),
        popularity_share=float(recommended[popular].sum() / total),
    )
