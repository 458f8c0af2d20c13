"""Train a sequence network in a `TrainingSession`: resumable, with progress and safety checks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from idiolect.errors import ConfigError, InputError
from idiolect.nn.network import Network
from idiolect.recommend.model_kinds import ItemLoss, ItemText
from idiolect.recommend.networks.item_networks import make_network
from idiolect.recommend.networks.next_item_objective import NextItem, windows
from idiolect.recommend.networks.sequence_scorer import SEQUENCE_SCORERS, SequenceScorer
from idiolect.recommend.networks.session_parallel import SessionParallel, SessionSteps
from idiolect.recommend.next_item_metrics import evaluate_scorer
from idiolect.recommend.splits import Split
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.objectives.objective import Objective
from idiolect.training.progress import notice
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["train_network"]

_FULL = 5_000
"""Maximum number of items for which the default loss is the full cross-entropy."""
_MAX_LENGTH = 50
_SAVE_STEPS = 1000
_EVAL_STEPS = 20
"""Minimum number of steps between evaluations, if an epoch has fewer."""
_VALIDATION_CASES = 4_000
"""Maximum number of validation cases per evaluation."""
_PATIENCE = 10
"""Training stops after this many evaluations without improvement."""
_MAX_EPOCHS = 200
"""Default maximum number of epochs."""


@dataclass(frozen=True)
class _Recipe:
    learning_rate: float
    hidden_share: float | None = None
    """Share of masked items; `None` predicts the next item."""
    item_text: ItemText | None = None
    """The required use of text embeddings, if any."""


_RECIPES = {
    "sasrec": _Recipe(1e-3),
    "gru4rec": _Recipe(2e-3),
    "bert4rec": _Recipe(1e-3, hidden_share=0.3),
    "unisrec": _Recipe(1e-3, item_text="alone"),
    "two-tower": _Recipe(1e-3),
}


@dataclass
class _ItemModel:
    """The model of the session: a network without a tokenizer."""

    network: Network


def train_network(
    name: str,
    parts: Split,
    folder: Path,
    *,
    vectors: NDArray[np.float32] | None = None,
    item_text: ItemText | None = None,
    loss: ItemLoss | None = None,
    session_parallel: bool = False,
    epochs: int | None = None,
    seed: int = 0,
) -> SequenceScorer:
    """Train a network on the training events of a split.

    The learning rate is constant, or decays along a cosine if the number of epochs is given. After
    each epoch, nDCG@10 is measured on at most 4,000 validation cases. Training stops after ten
    evaluations without improvement, and the best weights are restored. `metrics.jsonl` has the
    measurements as 1 − nDCG@10 (`validation_loss`).

    Args:
        name: `sasrec`, `gru4rec`, `bert4rec`, `unisrec` or `two-tower`.
        parts: The split: training events, and validation cases for early stopping.
        folder: The run's folder.
        vectors: Text embeddings of the items. Shape: (items, text width).
        item_text: How text embeddings are used; by default not at all, except for `unisrec`, which
            requires `alone`.
        loss: By default cross-entropy over all items, or sampled softmax if there are many.
        session_parallel: Use session-parallel mini-batches, as published for `gru4rec`, with the
            loss `cross-entropy` or `bpr-max`; see `SessionParallel`.
        epochs: Maximum number of epochs; by default 200.
        seed: Random seed.

    Raises:
        ConfigError: The loss or `session_parallel` is not supported by the network.
        InputError: No user has two training events.
        CheckpointError: The folder holds another run.
        TrainingError: The loss explodes.
    """
    recipe, train = _RECIPES[name], parts.train
    rows = windows(train.rows, _MAX_LENGTH)
    if not rows:
        raise InputError("no user has two training events", hint="use popularity, or more data")
    if session_parallel and name != "gru4rec":
        raise ConfigError(f"{name} does not read sessions side by side", hint="use gru4rec")
    if loss is None:
        full = session_parallel or len(train.items) <= _FULL
        loss = "cross-entropy" if full else "sampled-softmax"
    item_text = item_text or recipe.item_text
    if item_text is not None and vectors is None:
        raise InputError(f"{name} reads the vectors of the items' texts", hint="pass an encoder")
    network = make_network(
        name,
        len(train.items),
        _MAX_LENGTH,
        seed=seed,
        vectors=None if vectors is None else torch.from_numpy(vectors),
        item_text=item_text,
    )
    batch_size = min(128, len(rows))
    objective: Objective = (
        SessionParallel(train.counts, loss=loss)
        if session_parallel
        else NextItem(
            rows,
            train.counts,
            loss=loss,
            hidden_share=recipe.hidden_share,
            only_bought=item_text is not None,
            seed=seed,
        )
    )
    source: SessionSteps | ShuffledEpochs = (
        SessionSteps(rows, rows=batch_size, seed=seed)
        if session_parallel
        else ShuffledEpochs(len(rows), rows=batch_size, seed=seed)
    )
    # The network is new: there are no published rows to freeze.
    session = TrainingSession(
        _ItemModel(network),
        out=folder,
        config=_config(recipe, batch_size, source.steps, epochs=epochs, seed=seed),
        steps=(epochs or _MAX_EPOCHS) * source.steps,
        unfreeze_original_rows=True,
    )
    record = {"network": name, "loss": loss, "events": _digest(train.events, train.offsets)}
    if item_text is not None and vectors is not None:
        record |= {"item_text": item_text, "vectors": _digest(vectors)}
    if session_parallel:
        record["batches"] = "session-parallel"
    if len(parts.valid):
        record["validation"] = _digest(parts.valid.targets, parts.valid.owners)
    session.begin(record)
    scorer = SEQUENCE_SCORERS[name](network, len(train.items), _MAX_LENGTH)
    if not len(parts.valid):
        session.train(objective, source)
    else:
        session.train(objective, source, validate=_validator(scorer, parts), patience=_PATIENCE)
        _report(name, session, source.steps)
    session.publish(lambda path: _save(network, path))
    return scorer


def _config(
    recipe: _Recipe, batch_size: int, steps: int, *, epochs: int | None, seed: int
) -> TrainingConfig:
    """Return the training settings; `steps` is the number of steps per epoch."""
    return TrainingConfig(
        batch_size=batch_size,
        learning_rate=recipe.learning_rate,
        schedule="cosine" if epochs else "constant",
        warmup_ratio=0.05 if epochs else 1 / _MAX_EPOCHS,
        weight_decay=0.0,
        max_grad_norm=5.0,
        precision="fp32",
        save_steps=_SAVE_STEPS,
        eval_steps=max(steps, _EVAL_STEPS),
        seed=seed,
        max_length=_MAX_LENGTH,
    )


def _report(name: str, session: TrainingSession, steps: int) -> None:
    """Print which epoch was best, and whether it was the last, so that more may be better.

    Args:
        name: The name of the network.
        session: The finished session.
        steps: Steps per epoch.
    """
    losses, every = session.validation_losses, session.config.eval_steps
    best = losses.index(min(losses))
    text = f"{name}: nDCG@10 on validation is highest, {1 - losses[best]:.4f}, after "
    text += f"{min((best + 1) * every, session.steps) / steps:.0f} epochs"
    if best == len(losses) - 1:
        text += ", the last; more may be better"
    notice(text)


def _validator(scorer: SequenceScorer, parts: Split) -> Callable[[], float]:
    """Return a function that computes 1 − nDCG@10 on the validation cases."""
    cases = parts.valid.some(_VALIDATION_CASES)
    counts, exclude_seen = parts.train.counts, parts.train.repeats_are_rare

    def validate() -> float:
        result = evaluate_scorer(scorer, cases, counts, exclude_seen=exclude_seen)
        return 1 - result.means()["ndcg@10"]

    return validate


def _digest(*arrays: NDArray[np.generic]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _save(network: Network, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.contiguous() for name, weight in network.state_dict().items()}
    save_file(weights, folder / "network.safetensors")
