"""Train a recommender on histories and write it to a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.recommend.evaluate_recommender import scorers_of_texts
from idiolect.recommend.histories import Histories, k_core
from idiolect.recommend.history_files import read_histories
from idiolect.recommend.item_catalogue import join_catalogue, prices_of, read_catalogue
from idiolect.recommend.model_kinds import ItemLoss, ItemText, ModelName, SplitKind, Target
from idiolect.recommend.model_names import BASELINES, COMBINED, NETWORKS
from idiolect.recommend.recommender import Recommender
from idiolect.recommend.recommender_location import RECORD, is_recommender
from idiolect.recommend.scorer import ItemScorer
from idiolect.recommend.scorers.blend import Blend
from idiolect.recommend.scorers.dense_text import encode_items
from idiolect.recommend.scorers.learned_blend import LearnedBlend
from idiolect.recommend.splits import Split, split
from idiolect.text.arguments import checked
from idiolect.text.files import read_json
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, summary
from idiolect.training.progress import notice

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder

__all__ = ["fit_recommender", "train_recommender"]


@checked
def train_recommender(
    histories: str | Path | Sequence[str | Path] | Histories,
    *,
    model: ModelName,
    output_dir: str | Path,
    items: str | Path | None = None,
    encoder: Encoder | str | Path | None = None,
    split_by: SplitKind | None = None,
    target: Target = "next-item",
    k: int = 1,
    item_text: ItemText | None = None,
    loss: ItemLoss | None = None,
    session_parallel: bool = False,
    epochs: int | None = None,
    seed: int = 0,
    max_unreadable: float = MAX_UNREADABLE,
) -> Recommender:
    """Train a recommender and write it to a folder. Run it again to resume.

    Args:
        histories: Files with events, or histories.
        model: The model to train.
        output_dir: The folder.
        items: A catalogue with the items' texts; items without events can then be recommended, too.
        encoder: Encodes the items' texts; the vectors are used by the baseline `text-dense`, by
            blends and by networks.
        split_by: How to split the events; see `split`.
        target: The prediction target: the next item, or all items of the next basket.
        k: Remove users and items with fewer events (k-core).
        item_text: How a network uses text embeddings of items; by default it does not.
        loss: The loss of a network; by default cross-entropy over all items, or sampled softmax if
            there are many.
        session_parallel: Use session-parallel mini-batches, as published for `gru4rec`.
        epochs: Maximum number of epochs, for networks; see `train_network`.
        seed: Random seed, for networks.
        max_unreadable: The share of a file's rows that may be unreadable.

    Raises:
        ConfigError: The model is unknown, or does not support an option.
        InputError: The files cannot be read, or have too few events.
        CheckpointError: The folder holds another run, or a recommender of another model.
    """
    skipped, texts, metadata = Skipped(), list[str](), list[dict[str, Any]]()
    if not isinstance(histories, Histories):
        histories = read_histories(histories, skipped=skipped, max_unreadable=max_unreadable)
        if skipped:
            notice(f"left out of the histories: {summary(skipped)}")
    if encoder is not None and items is None:
        raise InputError("an encoder needs the items' texts", hint="pass --items FILE")
    if k > 1:
        histories = k_core(histories, k)
    if items is not None:
        of_items = Skipped()
        catalogue = read_catalogue(items, of_items, max_unreadable=max_unreadable)
        histories, texts, fit = join_catalogue(histories, catalogue.texts)
        metadata = [catalogue.metadata.get(id, {}) for id in histories.items]
        notice(fit + (f"; left out: {summary(of_items)}" if of_items else ""))
    return fit_recommender(
        histories,
        model=model,
        output_dir=output_dir,
        texts=texts,
        vectors=None if encoder is None else encode_items(texts, encoder),
        metadata=metadata,
        split_by=split_by,
        target=target,
        item_text=item_text,
        loss=loss,
        session_parallel=session_parallel,
        epochs=epochs,
        seed=seed,
        record={
            "skipped": dict(skipped),
            "encoder": str(encoder) if isinstance(encoder, str | Path) else None,
        },
    )


def fit_recommender(
    histories: Histories,
    *,
    model: ModelName,
    output_dir: str | Path,
    texts: Sequence[str] = (),
    vectors: NDArray[np.float32] | None = None,
    metadata: Sequence[dict[str, Any]] = (),
    split_by: SplitKind | None = None,
    target: Target = "next-item",
    item_text: ItemText | None = None,
    loss: ItemLoss | None = None,
    session_parallel: bool = False,
    epochs: int | None = None,
    seed: int = 0,
    record: Mapping[str, Any] | None = None,
) -> Recommender:
    """Fit a recommender to histories that are already joined with a catalogue, and write it.

    Args:
        histories: The events.
        model: The model to train.
        output_dir: The folder.
        texts: The text of each item, or none.
        vectors: The vector of each item's text. Shape: (items, width).
        metadata: Other fields of each item, or none.
        split_by: As in `train_recommender`.
        target: As in `train_recommender`.
        item_text: As in `train_recommender`.
        loss: As in `train_recommender`.
        session_parallel: As in `train_recommender`.
        epochs: As in `train_recommender`.
        seed: As in `train_recommender`.
        record: Further entries of `recommender.json`.

    Raises:
        ConfigError: As in `train_recommender`.
        InputError: As in `train_recommender`.
        CheckpointError: The folder holds another run, or a recommender of another model.
    """
    _check(model, item_text, loss, vectors, epochs, session_parallel)
    _refuse_other_model(Path(output_dir), model)
    single = int((np.diff(histories.offsets) == 1).sum())
    if single:
        notice(f"{single:,} of {len(histories):,} users have one event: they are no test case")
    parts = split(histories, split_by, target)
    notice(parts.report())
    written: dict[str, Any] = {
        **(record or {}),
        "model": model,
        "item_text": item_text,
        "split": parts.kind,
        "target": target,
        "leaked": parts.leaked,
        "exclude_seen": histories.repeats_are_rare,
        "repeats": histories.repeats,
    }
    fitting = _Fitting(
        parts,
        scorers_of_texts(texts, vectors),
        vectors,
        prices_of(list(metadata)),
        Path(output_dir),
        bool(written["exclude_seen"]),
        item_text,
        loss,
        session_parallel,
        epochs,
        seed,
    )
    scorer = fitting.fit(model)
    if isinstance(scorer, Blend):
        written["weights"] = scorer.weights
        notice("weights: " + ", ".join(f"{n} {w:g}" for n, w in scorer.weights.items() if w))
    if isinstance(scorer, LearnedBlend):
        written["importance"] = scorer.trees.importance
    recommender = Recommender(scorer, histories, written, texts, vectors, metadata)
    recommender.save(output_dir)
    return recommender


def _check(
    model: str,
    item_text: str | None,
    loss: str | None,
    vectors: NDArray[np.float32] | None,
    epochs: int | None,
    session_parallel: bool,
) -> None:
    """Raise an error for unknown or contradictory options."""
    if model not in get_args(ModelName):
        raise ConfigError(f"model is {model!r}", hint="one of " + ", ".join(get_args(ModelName)))
    trained = model in (*NETWORKS, Blend.name, LearnedBlend.name)
    if epochs is not None and not trained:
        raise ConfigError(f"{model} is counted, not trained in epochs", hint="leave out epochs")
    if epochs is not None and epochs < 1:
        raise ConfigError(f"epochs is {epochs}", hint="choose at least 1")
    for name, given, kind in (("item_text", item_text, ItemText), ("loss", loss, ItemLoss)):
        if given is not None and given not in get_args(kind):
            choices = ", ".join(get_args(kind))
            raise ConfigError(f"{name} is {given!r}", hint=f"one of {choices}")
    if not trained:
        for given, name in ((item_text, "item_text"), (loss, "loss")):
            if given is not None:
                raise ConfigError(f"{model} is no network", hint=f"leave out {name}")
    if session_parallel and model != "gru4rec":
        raise ConfigError(f"{model} does not read sessions side by side", hint="use gru4rec")
    if vectors is None and (item_text is not None or model in ("unisrec", "text-dense")):
        raise InputError(
            f"{model} needs the vectors of the items' texts", hint="pass --items and --encoder"
        )


def _refuse_other_model(folder: Path, model: str) -> None:
    """Raise an error if a folder holds a recommender of another model, which may be a mistake.

    The same model may be trained again there, on newer histories.
    """
    if not is_recommender(folder):
        return
    stored = read_json(folder / RECORD).get("model")
    if stored != model:
        raise CheckpointError(
            f"{folder} holds a recommender of the model {stored}, not {model}",
            hint="choose another folder, or delete this one",
        )


@dataclass(frozen=True)
class _Fitting:
    """The inputs for fitting any model."""

    parts: Split
    texts: Mapping[str, ItemScorer]
    """The text-based recommenders."""
    vectors: NDArray[np.float32] | None
    prices: NDArray[np.float32] | None
    folder: Path
    exclude_seen: bool
    item_text: ItemText | None
    loss: ItemLoss | None
    session_parallel: bool
    epochs: int | None
    seed: int

    def fit(self, model: str, folder: Path | None = None) -> ItemScorer:
        """Fit a model by name."""
        if model in NETWORKS:
            from idiolect.recommend.networks.train_network import train_network

            return train_network(
                model,
                self.parts,
                folder or self.folder,
                vectors=self.vectors,
                item_text=self.item_text,
                loss=self.loss,
                session_parallel=self.session_parallel,
                epochs=self.epochs,
                seed=self.seed,
            )
        if model == Blend.name:
            return Blend.chosen_on(self._parts(), self.parts.valid, exclude_seen=self.exclude_seen)
        if model == LearnedBlend.name:
            return LearnedBlend.trained_on(
                self._parts(),
                self.parts.valid,
                self.parts.train,
                exclude_seen=self.exclude_seen,
                prices=self.prices,
                seed=self.seed,
            )
        if model in self.texts:
            return self.texts[model]
        found = next((one for one in BASELINES if one.name == model), None)
        if found is None:
            raise InputError(f"{model} needs the items' texts", hint="pass --items FILE")
        return found.fit(self.parts.train)

    def _parts(self) -> dict[str, ItemScorer]:
        """Fit the parts of a combination."""
        fitted = dict(self.texts)
        for name in COMBINED:
            try:
                fitted[name] = self.fit(name, self.folder / name)
            except InputError as error:
                notice(f"the combination is without {name}: {error}")
        return fitted
