"""Choose how many layers of a model an encoder uses, by validation on held-out queries.

A deeper encoder is not always a better one. With few pairs, a static encoder (the mean of the
language model's embedding rows) often beats the first layers, at a hundredth of the cost. So a few
depths are tried: each is trained for a few steps on most of the pairs, and evaluated by how well it
ranks documents for the held-out queries.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import Pair, PairTable
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.models.shallow import first_layers
from idiolect.text.files import read_json, write_atomic
from idiolect.training.progress import duration, notice

__all__ = ["DepthTrial", "Layers", "TrialRun", "candidate_depths", "choose_depth", "with_layers"]

Layers = int | Literal["auto"]
"""A number of layers, or `auto` to choose among a few."""
TrialRun = Callable[[Encoder, Sequence[Pair], Path], Encoder]
"""Trains an encoder on pairs for a few steps, in the given folder, and returns it."""

_WHOLE = 12
"""The whole model is a candidate if it has at most this many layers."""
_HELD_OUT, _MAX_QUERIES, _MAX_DOCUMENTS = 0.2, 200, 2000
_MIN_QUERIES = 10
_RANKS = 10


@dataclass(frozen=True, kw_only=True)
class DepthTrial:
    """The result of one depth, and its cost."""

    layers: int
    """Number of layers."""
    ndcg: float
    """nDCG@10 of the held-out queries, among the documents of the pairs."""
    seconds: float
    """Seconds for training and encoding."""


def with_layers(encoder: Encoder, layers: int) -> Encoder:
    """Return an encoder of the first `layers` layers; with 0, a static one without a length limit.

    Raises:
        ConfigError: The model has fewer layers, or cannot be truncated.
    """
    return encoder.with_changes(layers=layers, **({} if layers else {"max_length": None}))


def candidate_depths(whole: int) -> tuple[int, ...]:
    """Return the depths to try: 0, 2, a quarter of the layers, and all if there are at most 12.

    >>> candidate_depths(30), candidate_depths(6)
    ((0, 2, 7), (0, 1, 2, 6))
    """
    return tuple(sorted({0, min(2, whole), whole // 4, whole if whole <= _WHOLE else 0}))


def choose_depth(encoder: Encoder, pairs: Sequence[Pair], run: TrialRun, folder: Path) -> int:
    """Return the depth with the best nDCG on held-out queries; the shallowest wins a tie.

    The trials are recorded in `folder/depths.json`, and their cost is printed. A run that is
    resumed reads the choice from there.

    Args:
        encoder: The encoder of the whole model. It is not changed.
        pairs: The pairs. A fifth of the queries, at most 200, are held out.
        run: Trains a trial.
        folder: The folder of the run.

    Raises:
        ConfigError: The encoder is already static, or cannot be truncated.
        InputError: There are too few distinct queries.
        CheckpointError: The folder has the trials of another model or of other pairs.
    """
    network = encoder.model.network
    if network.context_free:
        raise ConfigError("layers is 'auto', but the encoder is static", hint="leave it out")
    first_layers(encoder.model, 1)  # fails early if the model cannot be truncated
    whole = PairTable.of(pairs)
    identity = {"encoder": encoder.fingerprint, "pairs": whole.fingerprint}
    path = folder / "depths.json"
    if path.exists():
        record = read_json(path)
        if {name: record.get(name) for name in identity} != identity:
            raise CheckpointError(
                f"{path} is of another model or other pairs", hint="choose another folder"
            )
        return int(record["layers"])
    kept, rest = _split(whole)
    trials = []
    for layers in candidate_depths(len(network.blocks)):
        started = time.perf_counter()
        model = encoder.model.with_changes(network=copy.deepcopy(network))
        trial = with_layers(encoder.with_changes(model=model), layers)
        trial = run(trial, rest, folder / "depths" / str(layers))
        ndcg = _ndcg(trial, whole, kept)
        trials.append(DepthTrial(layers=layers, ndcg=ndcg, seconds=time.perf_counter() - started))
        cost = duration(trials[-1].seconds)
        notice(f"layers {layers}: nDCG@{_RANKS} {ndcg:.3f} on {len(kept)} queries kept out, {cost}")
    best = max(trials, key=lambda trial: (round(trial.ndcg, 4), -trial.layers))
    total = duration(sum(trial.seconds for trial in trials))
    notice(f"layers {best.layers} chosen; the choice took {total}")
    record = {**identity, "layers": best.layers, "trials": [asdict(trial) for trial in trials]}
    write_atomic(path, f"{json.dumps(record, indent=2)}\n".encode())
    return best.layers


def _split(table: PairTable) -> tuple[list[int], list[Pair]]:
    """Return the indices of the held-out queries, and the pairs of the other queries."""
    count = min(_MAX_QUERIES, math.ceil(_HELD_OUT * len(table.queries)))
    if count < _MIN_QUERIES:
        raise InputError(
            f"{len(table.queries)} different queries are too few to choose the layers by",
            hint=f"at least {round(_MIN_QUERIES / _HELD_OUT)}; or give a number of layers",
        )
    order = np.random.default_rng(0).permutation(len(table.queries))
    kept = set(order[:count].tolist())
    rest = [
        Pair(
            table.queries[query],
            table.documents[document],
            tuple(table.documents[number] for number in negatives),
            scores,
        )
        for (query, document), negatives, scores in zip(
            table.pairs, table.negatives, table.scores, strict=True
        )
        if query not in kept
    ]
    return sorted(kept), rest


def _ndcg(encoder: Encoder, table: PairTable, queries: Sequence[int]) -> float:
    """Return the mean nDCG@10 of queries among their documents and a sample of the others."""
    wanted = {number for query in queries for number in table.right[query]}
    others = [n for n in range(len(table.documents)) if n not in wanted]
    step = -(-len(others) // max(1, _MAX_DOCUMENTS - len(wanted)))
    numbers = sorted(wanted) + others[:: max(step, 1)]
    counts = EncodingCounts()
    documents = encoder.encode(
        [table.documents[number] for number in numbers], prompt_name="document", counts=counts
    )
    texts = [table.queries[query] for query in queries]
    scores = encoder.encode(texts, prompt_name="query", counts=counts) @ documents.T
    discount = 1 / np.log2(np.arange(2, _RANKS + 2))
    ndcg = []
    for query, row in zip(queries, scores, strict=True):
        ranked = np.argsort(-row, kind="stable")[:_RANKS]
        gains = np.array([numbers[place] in table.right[query] for place in ranked], dtype=float)
        ideal = discount[: len(table.right[query])].sum()
        ndcg.append(float((gains * discount[: len(gains)]).sum() / ideal))
    return float(np.mean(ndcg))
