"""`Recommender`: a trained recommender, which recommends the next items after a history."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.recommender_files import StoredRecommender
from idiolect.recommend.recommender_location import INDEX, recommender_folder
from idiolect.recommend.scorer import ItemScorer, Popularity, VectorScorer, hide_seen
from idiolect.recommend.splits import Split, split
from idiolect.text.arguments import check_path, check_whole, checked, iterate
from idiolect.text.fields import id_text

if TYPE_CHECKING:
    from idiolect.search.index import Index
    from idiolect.search.store.metadata_index import MetadataIndex

__all__ = ["Recommendation", "Recommender"]

_LOG = logging.getLogger(__name__)
_REASONS = 50
"""Maximum number of items of a history that may explain a recommendation."""
_MMR_FACTOR, _MMR_DEPTH = 5, 100
"""Candidates for diversification: a factor of the number of results, and the minimum number."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended item."""

    id: str
    score: float
    """Higher is better; comparable within one answer only."""
    text: str = ""
    """The item's text, if the recommender was trained with a catalogue."""
    because: str | None = None
    """The item of the history that most explains the recommendation, if any."""


class Recommender:
    """Recommends the next items after a history.

    >>> recommender = Recommender.load("runs/next")                    # doctest: +SKIP
    >>> recommender.recommend(["p17", "p4"], top_k=3)                  # doctest: +SKIP

    Args:
        scorer: The fitted model.
        histories: All events; they define the item numbers.
        record: How the model was trained.
        texts: The text of each item, or none.
        vectors: The vector of each item's text, or `None`. Shape: (items, width).
        metadata: Other fields of each item, for filters, or none.
    """

    def __init__(
        self,
        scorer: ItemScorer,
        histories: Histories,
        record: Mapping[str, Any],
        texts: Sequence[str] = (),
        vectors: NDArray[np.float32] | None = None,
        metadata: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.scorer, self.histories, self.record = scorer, histories, dict(record)
        self.texts, self.vectors, self.metadata = list(texts), vectors, list(metadata)
        self.index: Index | None = None
        """The index for recommendations, if one was built; see `build_index`."""
        self._numbers = {id: number for number, id in enumerate(histories.items)}
        self._popularity = Popularity.fit(self.split().train)

    @property
    def exclude_seen(self) -> bool:
        """Whether the evaluation excludes the items of a history."""
        return bool(self.record["exclude_seen"])

    def split(self) -> Split:
        """Return the split that the model was trained on."""
        return split(self.histories, self.record["split"], self.record.get("target", "next-item"))

    @classmethod
    @checked
    def load(cls, directory: str | Path) -> Self:
        """Load a recommender from its folder, or from the folder of a pipeline run.

        Raises:
            CheckpointError: Files are missing or damaged.
        """
        folder = recommender_folder(check_path(directory, "directory"))
        stored = StoredRecommender.read(folder)
        recommender = cls(
            stored.scorer,
            stored.histories,
            stored.record,
            stored.texts,
            stored.vectors,
            stored.metadata,
        )
        if (folder / INDEX).is_dir():
            from idiolect.search.index import Index

            recommender.index = Index.open(folder / INDEX)
        return recommender

    def save(self, directory: str | Path) -> None:
        """Write the recommender.

        Raises:
            InputError: The folder cannot be written to.
        """
        StoredRecommender(
            self.scorer, self.histories, self.record, self.texts, self.vectors, self.metadata
        ).write(check_path(directory, "directory"))

    @checked
    def build_index(self, directory: str | Path) -> Index:
        """Build an index of the items for approximate instead of exhaustive search.

        Args:
            directory: The folder that the recommender was loaded from.

        Raises:
            InputError: The model has no vectors of items.
        """
        from idiolect.recommend.item_index import build_item_index, vectors_to_index

        folder = recommender_folder(check_path(directory, "directory"))
        scorer = vectors_to_index(self.scorer)
        self.index = build_item_index(
            folder / INDEX, scorer, self.histories.items, self.texts, self.metadata
        )
        return self.index

    @checked
    def recommend(
        self,
        history: Iterable[str],
        top_k: int = 10,
        exclude_seen: bool = True,
        *,
        only: Iterable[str] | None = None,
        filter: Mapping[str, Any] | str | None = None,
        mmr_diversity: float = 0.0,
    ) -> list[Recommendation]:
        """Recommend the next items.

        Unknown ids are skipped with a warning. If the history has no known items, the most popular
        items are recommended.

        Args:
            history: Ids of items, oldest first.
            top_k: Number of items to recommend.
            exclude_seen: Never recommend an item of the history.
            only: Ids of the items that may be recommended, such as those in stock; unknown ids are
                ignored. By default all.
            filter: Conditions on other fields of the catalogue, such as `{"price": {"$lt": 20}}`;
                see `idiolect.search.filters`.
            mmr_diversity: 0 to 1; how much the items should differ from one another (MMR).

        Raises:
            InputError: The history is not a list of ids, `top_k` is below 1, or the filter or the
                diversity is not valid.
        """
        check_whole(top_k, "top_k", 1)
        if not 0 <= mmr_diversity <= 1:
            raise InputError(f"mmr_diversity is {mmr_diversity}", hint="use a number from 0 to 1")
        context = self._context(history)
        allowed = None if only is None else self._numbers_of(only)
        depth = max(_MMR_FACTOR * top_k, _MMR_DEPTH) if mmr_diversity else top_k
        if self.index is not None and len(context) and allowed is None:
            found = self._by_index(context, depth, exclude_seen, filter)
        else:
            found = self._by_product(context, depth, exclude_seen, allowed, filter)
        if mmr_diversity:
            found = self._diverse(found, top_k, mmr_diversity)
        reasons = self._reasons(context, np.array([number for number, _ in found], np.int64))
        return [
            Recommendation(
                self.histories.items[number],
                score,
                self.texts[number] if self.texts else "",
                reason,
            )
            for (number, score), reason in zip(found, reasons, strict=True)
        ]

    @checked
    def recommend_many(
        self, histories: Iterable[Iterable[str]], top_k: int = 10, exclude_seen: bool = True
    ) -> list[list[tuple[str, float]]]:
        """Recommend items after each of many histories by exact search, in batches.

        Args:
            histories: The histories, as in `recommend`.
            top_k: Number of items to recommend.
            exclude_seen: Never recommend an item of the history.

        Returns:
            Ids and scores for each history, best first.

        Raises:
            InputError: As in `recommend`.
        """
        check_whole(top_k, "top_k", 1)
        contexts = [self._context(history) for history in histories]
        scorer = self.scorer
        if isinstance(scorer, VectorScorer) and all(map(len, contexts)):
            users = scorer.user_vectors(contexts)
            if users.any(1).all():  # a zero vector means popularity
                return self._many(contexts, users, scorer.item_vectors(), top_k, exclude_seen)
        answers: list[list[tuple[str, float]]] = [[] for _ in contexts]
        for empty, model in ((True, self._popularity), (False, scorer)):
            asked = [i for i, context in enumerate(contexts) if (not len(context)) == empty]
            if not asked:
                continue
            some = [contexts[i] for i in asked]
            found = model.best(some, top_k, self._order, exclude_seen=exclude_seen)
            for i, *row in zip(asked, *(one.tolist() for one in found), strict=True):
                answers[i] = self._named(*row)
        return answers

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The popularity rank of each item, which breaks ties."""
        order = np.empty(len(self.histories.items), np.int64)
        order[np.argsort(-self._popularity.counts, kind="stable")] = np.arange(len(order))
        return order

    def _many(
        self,
        contexts: Sequence[NDArray[np.int64]],
        users: NDArray[np.float32],
        vectors: NDArray[np.float32],
        top_k: int,
        exclude_seen: bool,
    ) -> list[list[tuple[str, float]]]:
        """Return the best items by the inner products of users and items."""
        from idiolect.recommend.scorers.co_occurrence import interaction_matrix
        from idiolect.recommend.top_items import top_items

        seen = interaction_matrix(contexts, len(vectors)) if exclude_seen else None
        found = top_items(users, vectors, top_k, seen)
        return [self._named(*row) for row in zip(*(one.tolist() for one in found), strict=True)]

    def _named(self, numbers: list[int], scores: list[float]) -> list[tuple[str, float]]:
        """Return the ids of items and their scores; the number −1 is skipped."""
        pairs = zip(numbers, scores, strict=True)
        return [(self.histories.items[number], score) for number, score in pairs if number >= 0]

    def _context(self, history: Iterable[str]) -> NDArray[np.int64]:
        """Return the numbers of the known items of a history; log a warning about unknown ids."""
        ids = [_checked_id(one) for one in iterate(history, "history", "a list of ids")]
        known = [self._numbers[id] for id in ids if id in self._numbers]
        if unknown := [id for id in ids if id not in self._numbers]:
            _LOG.warning(
                "%d of %d ids of the history are unknown: %s%s",
                len(unknown),
                len(ids),
                ", ".join(unknown[:5]),
                "" if known else "; the most popular items are recommended",
            )
        return np.array(known, np.int64)

    def _numbers_of(self, ids: Iterable[str]) -> NDArray[np.int64]:
        wanted = {_checked_id(one) for one in iterate(ids, "only", "a list of ids")}
        return np.array([n for id, n in self._numbers.items() if id in wanted], np.int64)

    def _by_product(
        self,
        context: NDArray[np.int64],
        count: int,
        exclude_seen: bool,
        allowed: NDArray[np.int64] | None,
        filter: Mapping[str, Any] | str | None,
    ) -> list[tuple[int, float]]:
        """Return the best items and their scores, by scoring all items."""
        scorer = self.scorer if len(context) else self._popularity
        scores = scorer.score([context])
        if scores.shape[1] != len(self._popularity.counts):
            raise CheckpointError(
                f"the model scores {scores.shape[1]:,} items, and its ids.json names "
                f"{len(self._popularity.counts):,}",
                hint="its files belong to two models; train it again",
            )
        if exclude_seen:
            hide_seen(scores, [context])
        for rows in (allowed, self._matching(filter)):
            if rows is not None:
                hidden = np.ones(scores.shape[1], bool)
                hidden[rows] = False
                scores[0, hidden] = -np.inf
        # Equal scores, such as those of unrelated items, are ordered by popularity.
        best = np.lexsort((-self._popularity.counts, -scores[0]))[:count]
        return [(int(n), float(scores[0, n])) for n in best if np.isfinite(scores[0, n])]

    def _by_index(
        self,
        context: NDArray[np.int64],
        count: int,
        exclude_seen: bool,
        filter: Mapping[str, Any] | str | None,
    ) -> list[tuple[int, float]]:
        """Return the items that the index finds for the user's vector, and their scores."""
        from idiolect.recommend.item_index import indexed_top, vectors_to_index

        assert self.index is not None, "asked only if there is an index"
        vector = vectors_to_index(self.scorer).user_vectors([context])[0]
        if not vector.any():  # no known items: order by popularity
            return self._by_product(context, count, exclude_seen, None, filter)
        seen = set(context.tolist()) if exclude_seen else set()
        found = indexed_top(self.index, vector, count + len(seen), filter)
        numbered = [(self._numbers[id], score) for id, score in found]
        return [(number, score) for number, score in numbered if number not in seen][:count]

    def _matching(self, filter: Mapping[str, Any] | str | None) -> NDArray[np.int64] | None:
        """Return the numbers of the items that match a filter; `None` without one."""
        if filter is None:
            return None
        from idiolect.search.filters import parse

        if not self.metadata:
            raise InputError(
                "a filter needs the catalogue's fields, which this recommender lacks",
                hint="train it with --items FILE, whose records have such fields",
            )
        return self._fields.rows(parse(filter))

    @cached_property
    def _fields(self) -> MetadataIndex:
        """The metadata of all items, by field."""
        from idiolect.search.store.metadata_index import MetadataIndex

        db = sqlite3.connect(":memory:", check_same_thread=False)
        db.executescript(MetadataIndex.SCHEMA)
        fields = MetadataIndex(db, 0)
        fields.add(enumerate(self.metadata))
        return fields

    def _diverse(
        self, found: list[tuple[int, float]], top_k: int, mmr_diversity: float
    ) -> list[tuple[int, float]]:
        """Choose items that differ from one another, by the model's vectors or those of texts."""
        from idiolect.search.fusion import diversify
        from idiolect.search.items import Hit

        own = self.scorer
        vectors = own.item_vectors() if isinstance(own, VectorScorer) else self.vectors
        if vectors is None:
            raise InputError(
                f"{own.name} has no vectors of items to tell them apart",
                hint="train it with --items FILE --encoder DIR",
            )
        hits = [Hit(str(number), score, "", {}) for number, score in found]
        near = {str(number): vectors[number] for number, _ in found}
        return [(int(hit.id), hit.score) for hit in diversify(hits, near, top_k, mmr_diversity)]

    def _reasons(self, context: NDArray[np.int64], best: NDArray[np.int64]) -> list[str | None]:
        """Return, for each recommended item, the item of the history that scores it highest alone.

        Each item of the history is scored as a history of its own; the mean score is subtracted.
        Only the last items are, since many models read no others.
        """
        recent = list(dict.fromkeys(context[::-1].tolist()))[:_REASONS]
        # Popularity is the same after every history: none of its items explains anything.
        if not recent or not len(best) or isinstance(self.scorer, Popularity):
            return [None] * len(best)
        distinct = np.sort(recent)
        alone = self.scorer.score([np.array([number]) for number in distinct])
        alone = np.where(np.isfinite(alone), alone, np.nan)
        alone = np.nan_to_num(alone - np.nanmean(alone, 1, keepdims=True), nan=-np.inf)
        winners = alone[:, best].argmax(0)
        return [
            self.histories.items[distinct[winner]] if alone[winner, number] > 0 else None
            for winner, number in zip(winners, best, strict=True)
        ]


def _checked_id(value: object) -> str:
    id = id_text(value)
    if id is None:
        raise InputError(f"{value!r} is no id of an item", hint="pass ids of items")
    return id
