"""Choose how many layers of a model an encoder should have: by pairs kept out of training.

A deeper encoder is not always a better one. With few pairs the averaged embedding rows of a
language model, its static encoder, often beat its first layers, at a hundredth of the cost. So a
few depths are tried: each is trained for a few steps on most of the pairs, and ranks the documents
for the queries of the rest.
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
"""A number of layers, or the choice among a few."""
TrialRun = Callable[[Encoder, Sequence[Pair], Path], Encoder]
"""Trains an encoder on pairs for a few steps, with a run's folder."""

_WHOLE = 12
"""Up to so many layers, the whole model is a candidate."""
_HELD_OUT, _MAX_QUERIES, _MAX_DOCUMENTS = 0.2, 200, 2000
_MIN_QUERIES = 10
_RANKS = 10


@dataclass(frozen=True, kw_only=True)
class DepthTrial:
    """What a depth achieved, and what that cost."""

    layers: int
    """Number of layers."""
    ndcg: float
    """nDCG@10 of the queries kept out, among the documents of the pairs."""
    seconds: float
    """Time for training and encoding."""


def with_layers(encoder: Encoder, layers: int) -> Encoder:
    """Return an encoder of the first layers; a static one reads texts of any length.

    Raises:
        ConfigError: The model does not have so many layers, or cannot be cut.
    """
    return encoder.with_changes(layers=layers, **({} if layers else {"max_length": None}))


def candidate_depths(whole: int) -> tuple[int, ...]:
    """Return the depths to try: none, two, a quarter of the layers, and all of at most twelve.

    >>> candidate_depths(30), candidate_depths(6)
    ((0, 2, 7), (0, 1, 2, 6))
    """
    return tuple(sorted({0, min(2, whole), whole // 4, whole if whole <= _WHOLE else 0}))


def choose_depth(encoder: Encoder, pairs: Sequence[Pair], run: TrialRun, folder: Path) -> int:
    """Return the depth that ranks best for queries kept out; of equal ones the shallowest.

    The trials are recorded in `folder/depths.json`, and their cost is printed. A run that is
    resumed reads the choice from there.

    Args:
        encoder: The encoder of the whole model, which stays unchanged.
        pairs: The pairs. A fifth of the queries, at most 200, are kept out.
        run: Trains a trial.
        folder: The folder of the run.

    Raises:
        ConfigError: The encoder is static already, or cannot be cut.
        InputError: There are too few different queries.
        CheckpointError: The folder's trials are those of another model or other pairs.
    """
    network = encoder.model.network
    if network.context_free:
        raise ConfigError("layers is 'auto', but the encoder is static", hint="leave it out")
    first_layers(encoder.model, 1)  # fails early if it cannot be cut
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
    """Return the numbers of the queries kept out, and the pairs of the others."""
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
