"""Train a recommender on histories, and compare it with every baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import ConfigError, InputError
from idiolect.ranking.evaluation.significance import compare
from idiolect.recommend.blend import Blend
from idiolect.recommend.co_occurrence import Ease, ItemKnn, SessionKnn, Transitions
from idiolect.recommend.dense_text import DenseText, encode_items
from idiolect.recommend.histories import Histories, k_core
from idiolect.recommend.history_files import read_histories
from idiolect.recommend.item_catalogue import join_catalogue, read_texts
from idiolect.recommend.model_names import BASELINES, NETWORKS, ModelName
from idiolect.recommend.next_item_metrics import NextItemEvaluation, evaluate_scorer
from idiolect.recommend.recommender import Recommender
from idiolect.recommend.scorer import ItemScorer
from idiolect.recommend.splits import Split, SplitKind, split
from idiolect.recommend.text_similarity import TextSimilarity
from idiolect.text.arguments import checked
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, summary
from idiolect.training.progress import notice, track

__all__ = ["evaluate_recommender", "train_recommender"]

_REPEATS = 0.01
"""Share of repeated events from which recommending an item again is part of the task."""


@checked
def train_recommender(
    histories: str | Path | Sequence[str | Path] | Histories,
    *,
    model: ModelName,
    output_dir: str | Path,
    items: str | Path | None = None,
    encoder: str | Path | None = None,
    split_by: SplitKind | None = None,
    k: int = 1,
    epochs: int | None = None,
    seed: int = 0,
    max_unreadable: float = MAX_UNREADABLE,
) -> Recommender:
    """Train a recommender and write it to a folder. Run it again to resume.

    Args:
        histories: Files with events, or histories.
        model: What to train.
        output_dir: The folder.
        items: A catalogue with the items' texts; its other items can be recommended too.
        encoder: What turns the items' texts into vectors; then `text-dense` is in the table and a
            part of a blend.
        split_by: How to divide the events; see `split`.
        k: Leave out users and items with fewer events (k-core).
        epochs: Passes over the histories, for networks.
        seed: Random seed, for networks.
        max_unreadable: The share of a file's rows that may be unreadable.

    Raises:
        ConfigError: The model is unknown, or has no epochs.
        InputError: The files cannot be read, or hold too little.
        CheckpointError: The folder holds another run.
    """
    if model not in get_args(ModelName):
        raise ConfigError(f"model is {model!r}", hint="one of " + ", ".join(get_args(ModelName)))
    if epochs is not None and model not in (*NETWORKS, Blend.name):
        raise ConfigError(f"{model} is counted, not trained in epochs", hint="leave out epochs")
    skipped, texts = Skipped(), list[str]()
    if not isinstance(histories, Histories):
        histories = read_histories(histories, skipped=skipped, max_unreadable=max_unreadable)
        if skipped:
            notice(f"left out of the histories: {summary(skipped)}")
    if encoder is not None and items is None:
        raise InputError("an encoder needs the items' texts", hint="pass --items FILE")
    if k > 1:
        histories = k_core(histories, k)
    single = int((histories.offsets[1:] - histories.offsets[:-1] == 1).sum())
    if single:
        notice(f"{single:,} of {len(histories):,} users have one event: they are no test case")
    if items is not None:
        of_items = Skipped()
        histories, texts, fit = join_catalogue(histories, read_texts(items, of_items))
        notice(fit + (f"; left out: {summary(of_items)}" if of_items else ""))
    parts = split(histories, split_by)
    notice(parts.report())
    vectors = None if encoder is None else encode_items(texts, encoder)
    record: dict[str, Any] = {
        "model": model,
        "split": parts.kind,
        "leaked": parts.leaked,
        "exclude_seen": histories.repeats < _REPEATS,
        "repeats": histories.repeats,
        "skipped": dict(skipped),
        "encoder": None if encoder is None else str(encoder),
    }
    similar = _of_texts(texts, vectors)
    scorer = _fit(model, parts, similar, Path(output_dir), record, epochs, seed)
    if isinstance(scorer, Blend):
        record["weights"] = scorer.weights
        notice("weights: " + ", ".join(f"{n} {w:g}" for n, w in scorer.weights.items() if w))
    recommender = Recommender(scorer, histories, record, texts, vectors)
    recommender.save(output_dir)
    return recommender


def _fit(
    model: str,
    parts: Split,
    similar: dict[str, ItemScorer],
    folder: Path,
    record: dict[str, Any],
    epochs: int | None,
    seed: int,
) -> ItemScorer:
    if model in NETWORKS:
        from idiolect.recommend.networks.train_network import train_network

        return train_network(model, parts, folder, epochs=epochs, seed=seed)
    if model != Blend.name:
        return next(one for one in BASELINES if one.name == model).fit(parts.train)
    fitted = dict(similar)
    for one in (Transitions, ItemKnn, SessionKnn, Ease):
        try:
            fitted[one.name] = one.fit(parts.train)
        except InputError as error:
            notice(f"the blend is without {one.name}: {error}")
    fitted["sasrec"] = _fit("sasrec", parts, {}, folder / "sasrec", record, epochs, seed)
    return Blend.chosen_on(fitted, parts.valid, exclude_seen=record["exclude_seen"])


def _of_texts(texts: Sequence[str], vectors: NDArray[np.float32] | None) -> dict[str, ItemScorer]:
    """Return the recommenders that compare texts, by name."""
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
        exclude_seen: Leave out the items of a history; by default where repeats are rare.

    Returns:
        A JSON-serializable dict: `systems` has the metrics of each, and for the baselines
        `difference`, a paired test of nDCG@10 of the recommender against it.
    """
    parts, name = recommender.split(), str(recommender.record["model"])
    exclude = recommender.exclude_seen if exclude_seen is None else exclude_seen
    scorers: dict[str, ItemScorer] = {}
    left_out = {}
    for one in track(BASELINES, "fitting baselines"):
        if one.name != name:
            try:
                scorers[one.name] = one.fit(parts.train)
            except InputError as error:
                left_out[one.name] = str(error)
    scorers |= _of_texts(recommender.texts, recommender.vectors)
    scorers[name] = recommender.scorer
    counts = parts.train.counts
    results = {
        system: evaluate_scorer(scorer, parts.test, counts, exclude_seen=exclude)
        for system, scorer in track(list(scorers.items()), "evaluating")
    }
    return {
        "model": name,
        "split": parts.kind,
        "leaked": parts.leaked,
        "exclude_seen": exclude,
        "cases": len(parts.test),
        "cold_cases": int(results[name].cold.sum()),
        "left_out": left_out,
        "systems": {
            system: result.figures()
            | ({} if system == name else {"difference": _difference(result, results[name])})
            for system, result in results.items()
        },
    }


def _difference(baseline: NextItemEvaluation, own: NextItemEvaluation) -> dict[str, Any]:
    first, second = (
        {str(i): float(v) for i, v in enumerate(one.values("ndcg@10"))} for one in (baseline, own)
    )
    return asdict(compare(first, second, rounds=2000))
