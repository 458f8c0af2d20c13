"""`LearnedBlend`: LambdaMART over scores of recommenders, popularity, recency and price.

The best items of each recommender are candidates. Trees that are trained for nDCG on the validation
cases rank them by these features:

    score, share          of each recommender: the score, standardized within the history, and its
                          ratio to the best score
    popularity            logarithm of the number of training events
    recent popularity     the same for the last tenth of the training events
    in the history        how many events ago the item last occurred, if it did
    length                length of the history
    price, relative       the item's price, and its ratio to the mean price of the history, if known

All other items follow, in the order of their summed standardized scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.ranking.lambdamart import LambdaMART
from idiolect.recommend.histories import Histories
from idiolect.recommend.scorer import ItemScorer, Popularity, RecentPopularity, hide_seen
from idiolect.recommend.scorers.blend import normalised
from idiolect.recommend.splits import Cases

__all__ = ["LearnedBlend"]

_CANDIDATES = 50
"""Number of candidates per recommender."""
_NONE = np.zeros(0, np.int64)
_CASES = 4096
"""Maximum number of validation cases for training the trees."""


class LearnedBlend(ItemScorer):
    """Trees over the scores of several recommenders.

    Args:
        parts: The recommenders, by name.
        trees: The trained trees.
        features: Values of each item: popularity, recent popularity, price (NaN if unknown).
            Shape: (3, items).
        repeats: Whether items of the history were candidates in training.
    """

    name: ClassVar[str] = "lambdamart"
    own: ClassVar[str] = "lambdamart"
    """Prefix of the names of its own arrays."""

    def __init__(
        self,
        parts: Mapping[str, ItemScorer],
        trees: LambdaMART,
        features: NDArray[np.float32],
        *,
        repeats: bool,
    ) -> None:
        self.parts, self.trees, self.features = dict(parts), trees, features
        self.repeats = repeats

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Raise an error: it is built from fitted recommenders."""
        raise InputError("lambdamart needs fitted recommenders", hint="use LearnedBlend.trained_on")

    @classmethod
    def trained_on(
        cls,
        parts: Mapping[str, ItemScorer],
        valid: Cases,
        train: Histories,
        *,
        exclude_seen: bool,
        prices: NDArray[np.float32] | None = None,
        seed: int = 0,
    ) -> Self:
        """Train the trees on validation cases.

        Args:
            parts: Recommenders that were fitted without these cases.
            valid: The cases; a random sample is used if there are many.
            train: The training events.
            exclude_seen: As in the evaluation.
            prices: The price of each item, NaN if unknown. Shape: (items,).
            seed: Random seed.

        Raises:
            InputError: No target is among the candidates of its case.
            MissingDependencyError: LightGBM is not installed.
        """
        unknown = np.full(len(train.items), np.nan, np.float32)
        features = np.stack(
            [
                np.log1p(Popularity.fit(train).counts),
                np.log1p(RecentPopularity.fit(train).counts),
                unknown if prices is None else prices,
            ]
        ).astype(np.float32)
        cases = valid.some(_CASES, seed)
        contexts = cases.contexts
        draft = cls(parts, None, features, repeats=not exclude_seen)  # type: ignore[arg-type]
        tables: dict[str, NDArray[np.float32]] = {}
        qrels: dict[str, dict[str, float]] = {}
        for start in range(0, len(contexts), 256):
            some = contexts[start : start + 256]
            total, scaled = draft.scaled(some)
            for place, context in enumerate(some):
                case = start + place
                items = draft.candidates(total[place], scaled[:, place])
                targets = cases.targets[cases.owners == case]
                grades = np.isin(items, targets).astype(float)
                if grades.any():
                    tables[str(case)] = draft.table(context, items, scaled[:, place])
                    qrels[str(case)] = dict(zip(map(str, items), grades.tolist(), strict=True))
        if not qrels:
            raise InputError(
                "no validation target is among the candidates", hint="use blend, or more data"
            )
        trees = LambdaMART.fit(_Tables(tables, draft.names), qrels, seed=seed)
        return cls(parts, trees, features, repeats=not exclude_seen)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features, in order."""
        scores = [name for part in self.parts for name in (part, f"{part}, share")]
        given = ("popularity", "recent popularity", "price")
        return (*scores, *given, "events ago", "length", "relative price")

    def scaled(
        self, contexts: Sequence[NDArray[np.int64]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the sum of the standardized scores, and those of each part.

        Items that cannot be recommended have a sum of −∞.
        Shape: (contexts, items) and (parts, contexts, items).
        """
        scaled = np.stack([normalised(part.score(contexts)) for part in self.parts.values()])
        total: NDArray[np.float32] = scaled.sum(0)
        if not self.repeats:
            hide_seen(total, contexts)
        return total, scaled

    def candidates(
        self, total: NDArray[np.float32], scaled: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Return the best items of each part for one history. Shape: (candidates,)."""
        count = min(_CANDIDATES, len(total))
        best = np.argpartition(-scaled, count - 1, axis=1)[:, :count]
        found = np.unique(best)
        return found[np.isfinite(total[found])]

    def table(
        self,
        context: NDArray[np.int64],
        items: NDArray[np.int64],
        scaled: NDArray[np.float32],
        seen: NDArray[np.int64] = _NONE,
    ) -> NDArray[np.float32]:
        """Return the features of a history's candidates. Shape: (candidates + seen, features).

        Args:
            context: The history.
            items: The candidates.
            scaled: The standardized scores of each part. Shape: (parts, items).
            seen: Further items to score, which are compared with the best candidate too.
        """
        best = np.maximum(scaled[:, items].max(1, keepdims=True, initial=0), 1e-6)
        items = np.concatenate([items, seen])
        own = scaled[:, items]
        scores = np.stack([own, own / best], 1).reshape(2 * len(own), -1)
        ago = np.full(self.features.shape[1], np.nan, np.float32)
        ago[context] = len(context) - np.arange(len(context))
        prices = self.features[2]
        paid = prices[context][np.isfinite(prices[context])]
        mean = paid.mean() if paid.any() else np.nan  # nothing is relative to free items
        length = np.full(len(items), len(context), np.float32)
        more = [*self.features[:, items], ago[items], length, prices[items] / mean]
        return np.concatenate([scores, np.stack(more)]).T.astype(np.float32)

    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Rank the candidates by the trees, above all other items.

        So are the items of the history, which the caller may hide or recommend.
        """
        total, scaled = self.scaled(contexts)
        found, tables = [], []
        for place, context in enumerate(contexts):
            items = self.candidates(total[place], scaled[:, place])
            seen = _NONE if self.repeats else np.unique(context)
            tables.append(self.table(context, items, scaled[:, place], seen))
            found.append(np.concatenate([items, seen]))
        predicted = self.trees.predict(np.concatenate(tables)) if contexts else np.zeros(0)
        ends = np.cumsum([0, *map(len, found)])
        scores: NDArray[np.float32] = scaled.sum(0)
        for place, items in enumerate(found):
            if len(items):
                own = predicted[ends[place] : ends[place + 1]]
                # Trees give many candidates equal scores; a small multiple of the sum breaks ties.
                tie = scores[place, items] * 1e-4
                scores[place] -= scores[place].max() + 1
                scores[place, items] = own - own.min() + 1 + (tie - tie.min())
        return scores

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of the parts, and the trees as bytes of text."""
        text = np.frombuffer(self.trees.dumps().encode(), np.uint8)
        arrays: dict[str, NDArray[np.generic]] = {
            f"{self.own}/trees": text,
            f"{self.own}/features": self.features,
            f"{self.own}/repeats": np.array([self.repeats]),
        }
        for name, part in self.parts.items():
            arrays |= {f"{name}/{key}": value for key, value in part.arrays().items()}
        return arrays

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Raise an error: only `Recommender` knows the classes of the parts."""
        raise InputError("lambdamart is loaded with its parts", hint="use Recommender.load")

    @classmethod
    def of_parts(
        cls, parts: Mapping[str, ItemScorer], own: Mapping[str, NDArray[np.generic]]
    ) -> Self:
        """Create it from its parts and its own arrays."""
        trees = LambdaMART.loads(own["trees"].tobytes().decode())
        features = own["features"].astype(np.float32)
        # Files store arrays in another order; use the order of the trees' features.
        ordered = {name: parts[name] for name in trees.names if name in parts}
        return cls(ordered, trees, features, repeats=bool(own["repeats"][0]))


class _Tables:
    """Precomputed features of candidates."""

    def __init__(self, tables: Mapping[str, NDArray[np.float32]], names: tuple[str, ...]) -> None:
        self._tables, self.names = tables, names

    def table(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Return the rows of a case; `documents` must be all its candidates."""
        found = self._tables[query]
        assert len(found) == len(documents)
        return found
