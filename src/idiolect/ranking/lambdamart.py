"""`LambdaMART`: gradient-boosted trees trained for nDCG (Burges 2010), by LightGBM.

The trees combine features of different scales, such as the scores of several searches, prices and
dates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, InputError, MissingDependencyError
from idiolect.ranking.evaluation.metrics import Qrels, Run, ranked
from idiolect.ranking.features import Features
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format

__all__ = ["FeatureTable", "LambdaMART", "cross_validate"]

_MAXIMUM_DOCUMENTS = 10_000
"""LightGBM's maximum number of documents per query."""
_LARGEST_GRADE = 1000
"""The gain of a larger grade, 2^g - 1, does not fit into a number."""
_TREES, _FOLDS = 300, 5
_SETTINGS = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [10],
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class FeatureTable(Protocol):
    """The input of the trees: `Features`, or another source of feature tables."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each column."""

    def table(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of a query's documents. Shape: (documents, features)."""


class LambdaMART:
    """A trained LambdaMART model.

    >>> model = LambdaMART.fit(features, judgements)            # doctest: +SKIP
    >>> better = model.rerank(features, run)                    # doctest: +SKIP

    Args:
        trees: The trees, a `lightgbm.Booster`.
        names: The names of the features, in order.
    """

    def __init__(self, trees: Any, names: Sequence[str]) -> None:
        self._trees = trees
        self.names = tuple(names)
        """The names of the features."""

    @classmethod
    def fit(
        cls, features: FeatureTable, qrels: Qrels, *, trees: int | None = None, seed: int = 0
    ) -> Self:
        """Train on judged documents. Training is deterministic.

        Args:
            features: The features of a query's documents.
            qrels: Grades. The nDCG gain of a grade is 2^g - 1.
            trees: Number of trees. Default: the number, up to 300, with the best validation result
                on a fifth of the queries; the model is then trained on all queries.
            seed: Random seed.

        Raises:
            InputError: No query has documents with different grades, one has too many documents, or
                a grade is too large.
            MissingDependencyError: LightGBM is not installed.
        """
        known = {q: g for q, g in qrels.items() if len(set(g.values())) > 1}
        if not known:
            raise InputError(
                "no query has documents of different grades", hint="training needs such queries"
            )
        if long := [query for query, grades in known.items() if len(grades) > _MAXIMUM_DOCUMENTS]:
            raise InputError(
                f"query {long[0]!r} has more than {_MAXIMUM_DOCUMENTS:,} documents",
                hint="judge fewer documents per query",
            )
        lightgbm = _library()
        levels = sorted({max(0.0, g) for grades in known.values() for g in grades.values()})
        if levels[-1] > _LARGEST_GRADE:
            raise InputError(
                f"a grade of {levels[-1]:g}, whose gain is 2^{levels[-1]:g}",
                hint="rescale the grades, say to 0-4",
            )
        rows = {query: features.table(query, list(grades)) for query, grades in known.items()}

        def data(queries: Sequence[str]) -> Any:
            grades = [max(0.0, g) for query in queries for g in known[query].values()]
            return lightgbm.Dataset(
                np.concatenate([rows[query] for query in queries]),
                [levels.index(grade) for grade in grades],
                group=[len(rows[query]) for query in queries],
            )

        settings = _SETTINGS | {"label_gain": [2.0**level - 1 for level in levels], "seed": seed}
        names = np.random.default_rng(seed).permutation(sorted(known)).tolist()
        if trees is None and len(names) >= _FOLDS:
            trial = lightgbm.train(
                settings,
                data(names[len(names) // _FOLDS :]),
                num_boost_round=_TREES,
                valid_sets=[data(names[: len(names) // _FOLDS])],
                callbacks=[lightgbm.early_stopping(_TREES, verbose=False)],
            )
            trees = max(1, trial.best_iteration)
        grown = lightgbm.train(settings, data(names), num_boost_round=trees or _TREES)
        return cls(grown, features.names)

    def rerank(
        self, features: FeatureTable, run: Run, *, top_k: int = 100
    ) -> dict[str, dict[str, float]]:
        """Rerank the best documents of each query and drop the others.

        Args:
            features: The same features as in training.
            run: The candidates.
            top_k: Number of documents to rerank per query.

        Raises:
            InputError: The features differ from those in training.
        """
        if features.names != self.names:
            raise InputError(
                f"unexpected features {', '.join(features.names)}",
                hint=f"the model was trained with {', '.join(self.names)}",
            )
        result = {}
        for query, found in run.items():
            names = ranked(found)[:top_k]
            if names:
                scores = self.predict(features.table(query, names))
                result[query] = dict(zip(names, scores.tolist(), strict=True))
        return result

    def predict(self, table: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score rows of features. Shape: table (rows, features), result (rows,)."""
        return np.asarray(self._trees.predict(table), np.float64)

    @property
    def importance(self) -> dict[str, float]:
        """Share of each feature in the total gain of all splits, in descending order."""
        gains = self._trees.feature_importance("gain")
        shares = dict(zip(self.names, (gains / max(gains.sum(), 1e-12)).tolist(), strict=True))
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def save(self, path: str | Path) -> None:
        """Write the text of `dumps`. The write is atomic."""
        write_atomic(Path(path), self.dumps().encode())

    def dumps(self) -> str:
        """Return JSON with the trees in LightGBM's text format."""
        record = {"features": self.names, "trees": self._trees.model_to_string()}
        return json.dumps(with_format(record))

    @classmethod
    def loads(cls, text: str) -> Self:
        """Read what `dumps` returned.

        Raises:
            CheckpointError: It is damaged.
            MissingDependencyError: LightGBM is not installed.
        """
        try:
            record = json.loads(text)
        except ValueError as error:
            raise CheckpointError(f"the trees are damaged: {error}", hint="train again") from error
        return cls._of_record(record, "the model")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote.

        Raises:
            CheckpointError: The file is missing or damaged.
            MissingDependencyError: LightGBM is not installed.
        """
        record = check_format(read_json(Path(path)), Path(path), rebuild="train it again")
        return cls._of_record(record, str(path))

    @classmethod
    def _of_record(cls, record: Any, place: str) -> Self:
        lightgbm = _library()
        try:
            trees = lightgbm.Booster(model_str=record["trees"])
            fits = trees.num_feature() == len(record["features"])
        except (KeyError, TypeError, lightgbm.basic.LightGBMError) as error:
            raise CheckpointError(
                f"{place} has no valid trees: {error}", hint="save it again"
            ) from error
        if not fits:
            raise CheckpointError(f"{place}: trees and features do not match", hint="save it again")
        return cls(trees, record["features"])


def cross_validate(
    features: Features,
    qrels: Qrels,
    run: Run,
    *,
    folds: int = _FOLDS,
    trees: int | None = None,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Rank the documents of each query by a model trained on other queries.

    Args:
        features: The features.
        qrels: Grades of at least as many queries as folds.
        run: The candidates.
        folds: Number of folds.
        trees: As in `LambdaMART.fit`.
        seed: Random seed of the folds and of `LambdaMART.fit`.

    Raises:
        InputError: Fewer than two folds, fewer queries than folds, or as in `LambdaMART.fit`.
    """
    if not 2 <= folds <= len(qrels):
        raise InputError(
            f"{folds} folds of {len(qrels)} queries",
            hint="choose from 2 to the number of queries",
        )
    names = np.random.default_rng(seed).permutation(sorted(qrels)).tolist()
    result: dict[str, dict[str, float]] = {}
    for fold in range(folds):
        test = set(names[fold::folds])
        train: Mapping[str, Mapping[str, float]] = {
            query: grades for query, grades in qrels.items() if query not in test
        }
        model = LambdaMART.fit(features, train, trees=trees, seed=seed)
        result |= model.rerank(features, {q: run[q] for q in names[fold::folds] if q in run})
    return result


def _library() -> ModuleType:
    try:
        return import_module("lightgbm")
    except (ImportError, OSError) as error:  # the OpenMP library may be missing
        raise MissingDependencyError(
            f"LightGBM cannot be loaded: {error}", hint="pip install 'idiolect[ranking]'"
        ) from error
