"""The weight of dense scores in hybrid search: a default, or fitted to queries with judgements.

Lexical scores get the remaining weight. Hybrid search must not be worse than lexical search. But
without relevance judgements, nothing in an index distinguishes a good encoder from an average of
token vectors: neither excerpts of its items as queries, nor the agreement of both rankings. So the
default depends on the origin of the encoder:

- 0.4 if it was published as an encoder. The best weights were from 0.3 to 0.65.
- 0 if it was derived from a language model, even after tuning: across domains, the best weight of
  the same recipe ranges from 0 to 0.6.

Judged queries are usually few, and differ from those that users will ask. So the fitted weight is
the one with the highest lower confidence bound of its gain over lexical search, shrunk towards the
default. `benchmarks/fusion.py` has the measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from idiolect.errors import InputError
from idiolect.search.fusion import fuse

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from idiolect.search.items import Hits

__all__ = ["HybridWeight", "fit_weight"]

_PUBLISHED = 0.4
_SHARES = [n / 20 for n in range(21)]
_QUERIES_AS_PRIOR = 25
"""The prior counts as much as this many queries."""
_INTERVAL = 1.96
"""Half the width of a 95% confidence interval, in standard errors."""
_FIRST = 10


@dataclass(frozen=True)
class HybridWeight:
    """The weight of dense scores in hybrid search, and the evidence for it."""

    dense: float
    """0 to 1; lexical scores get the remaining weight."""
    evidence: str
    """The evidence, in one sentence for the user."""

    def __str__(self) -> str:
        return f"vectors {self.dense:.0%}, words {1 - self.dense:.0%}: {self.evidence}"

    @property
    def weights(self) -> tuple[float, float]:
        """The weights of the dense and the lexical ranking."""
        return self.dense, 1 - self.dense

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> HybridWeight:
        """Return the fitted weight of a store with these settings, or else the default."""
        percent = settings.get("dense_percent")
        if percent is None:
            return cls.default(settings)
        evidence = settings.get("dense_evidence", "fitted by an earlier version of idiolect")
        return cls(int(percent) / 100, str(evidence))

    @classmethod
    def default(cls, settings: Mapping[str, Any]) -> HybridWeight:
        """Return the default weight of a store with these settings.

        It depends on the setting `published`: whether the encoder was published as an encoder (1 or
        0). An encoder without this setting, such as one of another library, counts as published.
        """
        if settings.get("published", 1):
            return cls(_PUBLISHED, "the default for an encoder that was published as one")
        return cls(
            0.0,
            "the default for an encoder made of a language model, until it is fitted to queries"
            " with known answers",
        )


def fit_weight(
    queries: Iterable[tuple[Hits, Hits, Collection[str]]],
    prior: HybridWeight,
    *,
    depth: int = 100,
) -> HybridWeight:
    """Fit the weight to queries with relevance judgements.

    Of the weights 0, 0.05, … 1, take the one with the highest lower bound of the 95% confidence
    interval of its gain in nDCG@10 over lexical search, or 0 if no lower bound is above 0. Return
    the weighted mean of it and the prior, which counts as 25 queries, rounded down to a multiple of
    0.05.

    Args:
        queries: the dense and the lexical ranking of each query, and the ids of its relevant items.
        prior: the weight without judgements.
        depth: the length at which rankings were truncated.

    Raises:
        InputError: there are no queries.
    """
    rows = [
        [_ndcg(dense, words, share, answers, len(words) < depth) for share in _SHARES]
        for dense, words, answers in queries
    ]
    if not rows:
        raise InputError("no queries to choose weights on", hint="add queries with their answers")
    figures, count = np.array(rows), len(rows)
    gains = figures - figures[:, :1]
    errors = gains.std(0, ddof=min(1, count - 1)) / math.sqrt(count)
    low = gains.mean(0) - _INTERVAL * errors if count > 1 else np.zeros(len(_SHARES))
    best = int(low.argmax())
    trust = count / (count + _QUERIES_AS_PRIOR)
    mean = trust * _SHARES[best] + (1 - trust) * prior.dense
    dense = math.floor(mean * 20 + 1e-6) / 20
    words, hybrid = figures.mean(0)[[0, _SHARES.index(dense)]]
    evidence = (
        f"{count:,} queries with known answers: nDCG@{_FIRST} {hybrid:.3f}, words alone {words:.3f}"
        f" (best for them {_SHARES[best]:g}, default {prior.dense:g})"
    )
    return HybridWeight(dense, evidence)


def _ndcg(
    dense: Hits, words: Hits, share: float, answers: Collection[str], complete: bool
) -> float:
    sides = [dense, words]
    weights = (share, 1 - share)
    hits = fuse(sides, method="weighted", weights=weights, complete=(False, complete))[:_FIRST]
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits, 1) if hit.id in answers)
    count = min(_FIRST, len(set(answers)))
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, count + 1)) if count else 0.0
