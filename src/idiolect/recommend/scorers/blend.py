"""`Blend`: a weighted sum of several recommenders, with weights chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.next_item_metrics import case_values, rank_targets
from idiolect.recommend.scorer import ItemScorer, hide_seen
from idiolect.recommend.splits import Cases

__all__ = ["Blend", "normalised"]

_CASES, _MOST_CASES = 1024, 4096
"""Number of validation cases for choosing weights: minimum, and maximum if memory allows."""
_SCORES = 1 << 25
"""Maximum number of scores of a part in memory: 128 MiB."""
_ROUNDS = 20


class Blend(ItemScorer):
    """A weighted sum of scores that are standardized within each history.

    Args:
        parts: The recommenders, by name.
        weights: The weight of each.
    """

    name: ClassVar[str] = "blend"

    def __init__(self, parts: Mapping[str, ItemScorer], weights: Mapping[str, float]) -> None:
        self.parts, self.weights = dict(parts), dict(weights)

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Raise an error: it is built from fitted recommenders."""
        raise InputError("a blend needs fitted recommenders", hint="use Blend.chosen_on")

    @classmethod
    def chosen_on(
        cls, parts: Mapping[str, ItemScorer], valid: Cases, *, exclude_seen: bool
    ) -> Self:
        """Choose weights by nDCG@10 on validation cases.

        Ensemble selection (Caruana et al. 2004): in each round, add the recommender that improves
        the sum most, with replacement. The best sum of all rounds is used, so on these cases the
        result is never worse than the best single recommender.

        Args:
            parts: Fitted recommenders, by name.
            valid: Validation cases; a random sample is used if there are many.
            exclude_seen: As in the evaluation.

        Raises:
            InputError: There are no validation cases.
        """
        if not len(valid):
            raise InputError("no validation cases to choose weights on", hint="use another split")
        items = next(iter(parts.values())).score(valid.contexts[:1]).shape[1]
        cases = valid.some(min(max(_SCORES // items, _CASES), _MOST_CASES))
        scores = {name: normalised(part.score(cases.contexts)) for name, part in parts.items()}

        def value(total: NDArray[np.float32]) -> float:
            if exclude_seen:
                hide_seen(total, cases.contexts)
            ranks = rank_targets(total, cases.targets, cases.owners)
            return float(case_values("ndcg@10", ranks, cases.owners, len(cases)).mean())

        total = np.zeros((len(cases), items), np.float32)
        counts = dict.fromkeys(parts, 0)
        reached, chosen = -1.0, counts
        for _ in range(_ROUNDS):
            values = {name: value(total + scores[name]) for name in parts}
            best = max(values, key=lambda name: values[name])
            total += scores[best]
            counts = {**counts, best: counts[best] + 1}
            if values[best] > reached:
                reached, chosen = values[best], counts
        most = max(chosen.values())
        return cls(parts, {name: count / most for name, count in chosen.items()})

    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Sum up the scaled scores."""
        used = {name: weight for name, weight in self.weights.items() if weight}
        scores = [
            np.float32(weight) * normalised(self.parts[name].score(contexts))
            for name, weight in used.items()
        ]
        total: NDArray[np.float32] = np.sum(scores, axis=0)
        return total

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of the parts that have a weight, and the weights."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, weight in self.weights.items():
            if weight:
                arrays[f"{name}/weight"] = np.array([weight])
                parts = self.parts[name].arrays()
                arrays |= {f"{name}/{key}": value for key, value in parts.items()}
        return arrays

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Raise an error: only `Recommender` knows the classes of the parts."""
        raise InputError("a blend is loaded with its parts", hint="use Recommender.load")


def normalised(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to mean 0 and standard deviation 1; a row of equal scores becomes 0."""
    centred = scores - scores.mean(1, keepdims=True)
    deviation = centred.std(1, keepdims=True)
    scaled: NDArray[np.float32] = centred / np.where(deviation > 0, deviation, 1)
    return scaled
