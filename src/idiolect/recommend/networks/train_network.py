"""Train a sequence network in the one session: resumable, with progress and safety checks."""

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
"""Items up to which the default loss scores all of them."""
_MAX_LENGTH = 50
_SAVE_STEPS = 1000
_EVAL_STEPS = 20
"""Steps from one evaluation to the next, where an epoch has fewer."""
_VALIDATION_CASES = 4_000
"""Validation cases that an evaluation takes at most."""
_PATIENCE = 10
"""Evaluations without a better one after which training ends."""
_MAX_EPOCHS = 200
"""Epochs after which training ends in any case, unless their number is given."""


@dataclass(frozen=True)
class _Recipe:
    learning_rate: float
    hidden_share: float | None = None
    """Share of hidden items; `None` predicts the next one."""
    item_text: ItemText | None = None
    """What the network cannot do without."""


_RECIPES = {
    "sasrec": _Recipe(1e-3),
    "gru4rec": _Recipe(2e-3),
    "bert4rec": _Recipe(1e-3, hidden_share=0.3),
    "unisrec": _Recipe(1e-3, item_text="alone"),
    "two-tower": _Recipe(1e-3),
}


@dataclass
class _ItemModel:
    """What the session trains: a network without a tokenizer."""

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

    The learning rate is constant, and falls along a cosine where the number of epochs is given.
    After each epoch, nDCG@10 of at most 4,000 validation cases is measured. Training stops after
    ten epochs without a higher one, and the network has the weights of the highest. `metrics.jsonl`
    has the measurements, as their distance from 1 (`validation_loss`).

    Args:
        name: `sasrec`, `gru4rec`, `bert4rec`, `unisrec` or `two-tower`.
        parts: The split; its training events are learned, and its validation cases end training.
        folder: The run's folder.
        vectors: The vectors of the items' texts. Shape: (items, text width).
        item_text: How they are read; by default not at all, but `unisrec` reads nothing else.
        loss: By default cross-entropy over all items, or sampled softmax if there are many.
        session_parallel: Read sessions side by side, as published for `gru4rec`, with the losses
            `cross-entropy` and `bpr-max`; see `SessionParallel`.
        epochs: Passes over the histories at most; by default 200.
        seed: Random seed.

    Raises:
        ConfigError: The loss or the order of reading does not fit the network.
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
    # The network is new: no row is a published one that has to stay.
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
    """Return how a network trains whose epoch has some number of steps."""
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
    """Say which epoch was best, and whether training ended there only because it had to.

    Args:
        name: The network.
        session: A session that has trained.
        steps: Steps of an epoch.
    """
    losses, every = session.validation_losses, session.config.eval_steps
    best = losses.index(min(losses))
    text = f"{name}: nDCG@10 on validation is highest, {1 - losses[best]:.4f}, after "
    text += f"{min((best + 1) * every, session.steps) / steps:.0f} epochs"
    if best == len(losses) - 1:
        text += ", the last; more may be better"
    notice(text)


def _validator(scorer: SequenceScorer, parts: Split) -> Callable[[], float]:
    """Return what measures how far the network's nDCG@10 on validation is from 1."""
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
