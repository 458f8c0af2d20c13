"""Compare a recommender with every baseline on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.ranking.evaluation.significance import compare
from idiolect.recommend.model_names import BASELINES
from idiolect.recommend.next_item_metrics import NextItemEvaluation, evaluate_scorer
from idiolect.recommend.recommender import Recommender
from idiolect.recommend.scorer import ItemScorer
from idiolect.recommend.scorers.dense_text import DenseText
from idiolect.recommend.scorers.text_similarity import TextSimilarity
from idiolect.recommend.splits import Split
from idiolect.training.progress import track

__all__ = ["compare_evaluations", "evaluate_recommender", "fit_baselines", "scorers_of_texts"]

_METRIC = "ndcg@10"


def fit_baselines(
    parts: Split, leave_out: Sequence[str] = ()
) -> tuple[dict[str, ItemScorer], dict[str, str]]:
    """Fit every baseline to the training events.

    Args:
        parts: The split.
        leave_out: Names of baselines to skip.

    Returns:
        The baselines by name; and for those that could not be fitted, the reason.
    """
    fitted: dict[str, ItemScorer] = {}
    failed = {}
    for one in track([one for one in BASELINES if one.name not in leave_out], "fitting baselines"):
        try:
            fitted[one.name] = one.fit(parts.train)
        except InputError as error:
            failed[one.name] = str(error)
    return fitted, failed


def scorers_of_texts(
    texts: Sequence[str], vectors: NDArray[np.float32] | None
) -> dict[str, ItemScorer]:
    """Return the recommenders that compare the items' texts, by name."""
    found: dict[str, ItemScorer] = {}
    if any(texts):
        found[TextSimilarity.name] = TextSimilarity.of_texts(texts)
    if vectors is not None:
        found[DenseText.name] = DenseText(vectors)
    return found


def evaluate_recommender(
    recommender: Recommender, *, exclude_seen: bool | None = None
) -> dict[str, Any]:
    """Compare a recommender with every baseline on its test cases.

    Args:
        recommender: The recommender.
        exclude_seen: Never recommend items of the history; by default if repeats are rare.

    Returns:
        A JSON-serializable dict: `systems` has the metrics of each, and for the baselines
        `difference`, a paired test of nDCG@10 of the recommender against it.
    """
    parts, name = recommender.split(), str(recommender.record["model"])
    exclude = recommender.exclude_seen if exclude_seen is None else exclude_seen
    scorers, left_out = fit_baselines(parts, (name,))
    scorers |= scorers_of_texts(recommender.texts, recommender.vectors)
    scorers[name] = recommender.scorer
    counts = parts.train.counts
    results = {
        system: evaluate_scorer(scorer, parts.test, counts, exclude_seen=exclude)
        for system, scorer in track(list(scorers.items()), "evaluating")
    }
    own = results[name]
    return {
        "model": name,
        "split": parts.kind,
        "leaked": parts.leaked,
        "exclude_seen": exclude,
        "cases": len(parts.test),
        "cold_cases": int(own.cold.sum()),
        "left_out": left_out,
        "systems": {
            system: result.figures()
            | ({} if system == name else {"difference": compare_evaluations(result, own)})
            for system, result in results.items()
        },
    }


def compare_evaluations(
    first: NextItemEvaluation,
    second: NextItemEvaluation,
    where: NDArray[np.bool_] | None = None,
    *,
    rounds: int = 2000,
) -> dict[str, Any]:
    """Test the difference of nDCG@10 between two recommenders over the same cases.

    Args:
        first: The baseline.
        second: The other recommender; the difference is its mean minus that of the baseline.
        where: The cases to use; by default all. Shape: (cases,).
        rounds: Number of random draws of the test.

    Raises:
        InputError: There are no cases.
    """
    chosen = slice(None) if where is None else where
    sides = (
        {str(place): float(value) for place, value in enumerate(one.values(_METRIC)[chosen])}
        for one in (first, second)
    )
    return asdict(compare(*sides, rounds=rounds))
