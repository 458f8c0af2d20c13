"""Recommenders beside those of rectools and implicit: training steps, and item-to-item models.

    python benchmarks/recommendation_speed.py steps HISTORIES --rectools PYTHON
    python benchmarks/recommendation_speed.py counts HISTORIES …

One thread each, alternating, medians; HISTORIES is a file that `idiolect recommend train` reads.

`steps`: a training step of SASRec with 2 blocks of width 64, one head, 50 items at most and 128
histories, cross-entropy over all items, and sampled softmax with 256 negatives: for each target in
rectools, for all targets of a batch here. A step is what passes from one batch to the next, with
the reading of the histories. PYTHON has rectools[torch], which needs an old NumPy. With `long` for
HISTORIES, they are random ones of 51 among 12,000 items, in which nothing is padding.

`counts`: fitting item kNN with 200 neighbours, ten items for each test case (at most 5,000), both
beside implicit's `CosineRecommender`; and fitting EASE beside the closed form as rectools computes
it, in NumPy.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

ROWS, LENGTH, WIDTH, NEGATIVES = 128, 50, 64, 256
STEPS, SECONDS = 30, 6.0
"""Steps that are timed, and seconds after which fewer are enough."""
MAX_EASE = 5_000
"""Items up to which EASE is measured: its time grows with the third power."""
LOSSES = {"cross-entropy": "softmax", "sampled-softmax": "sampled_softmax"}
"""Names of the losses here and in rectools."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("steps", "counts", *SIDES))
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rectools", default=sys.executable, help="a Python with rectools")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loss", choices=LOSSES, help="of one side, for JSON")
    given = parser.parse_args()
    if given.what in SIDES:
        with np.load(given.files[0]) as stored:
            print(json.dumps(SIDES[given.what](stored["events"], stored["lengths"], given.loss)))
    for path in given.files:
        if given.what == "steps":
            steps(path, given.rectools, given.rounds)
        if given.what == "counts":
            counts(path)


def steps(path: Path, rectools: str, rounds: int) -> None:
    if str(path) == "long":
        long = np.random.default_rng(0).integers(12_000, size=(8 * ROWS, LENGTH + 1))
        events, lengths = long.ravel(), np.full(len(long), LENGTH + 1)
    else:
        from idiolect.recommend.history_files import read_histories
        from idiolect.recommend.splits import split

        train = split(read_histories(path), "leave-one-out").train
        events, lengths = train.events, np.diff(train.offsets)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "events.npz"
        np.savez(file, events=events, lengths=lengths)
        for loss in LOSSES:
            found: dict[str, list[float]] = {"idiolect": [], "rectools": []}
            for number in range(rounds):
                for side in sorted(found, reverse=number % 2 == 1):
                    python = rectools if side == "rectools" else sys.executable
                    command = [python, __file__, side, str(file), "--loss", loss]
                    printed = subprocess.check_output(command, text=True)
                    found[side].append(json.loads(printed.splitlines()[-1]))
            ours, theirs = (statistics.median(found[side]) for side in found)
            print(
                f"{path.name}, {loss}: ours {ours * 1e3:.0f} ms, rectools {theirs * 1e3:.0f} ms "
                f"a step, ratio {theirs / ours:.1f}",
                flush=True,
            )


def our_step(events: np.ndarray, lengths: np.ndarray, loss: str) -> float:
    """Return the seconds of a step here."""
    import torch

    import idiolect.recommend.networks.train_network as trainer
    from idiolect.recommend.histories import Histories
    from idiolect.recommend.networks.next_item_objective import NextItem
    from idiolect.recommend.splits import Cases, Split

    torch.set_num_threads(1)
    begun: list[float] = []

    class Timed(NextItem):
        def __init__(self, *given: Any, **settings: Any) -> None:
            super().__init__(*given, **settings, samples=NEGATIVES)

        def prepare(self, rows: Any) -> Any:
            begun.append(time.perf_counter())
            if len(begun) > STEPS or (len(begun) > 4 and begun[-1] - begun[0] > SECONDS):
                raise EnoughError
            return super().prepare(rows)

    trainer.NextItem = Timed  # type: ignore[misc]
    rows = np.split(events, np.cumsum(lengths)[:-1])
    names = tuple(map(str, range(events.max() + 1)))
    histories = Histories.of_numbers(tuple(map(str, range(len(rows)))), names, rows)
    nothing = Cases.of((), [], np.zeros(0, np.int64))
    parts = Split("leave-one-out", histories, nothing, nothing, None)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EnoughError):
        trainer.train_network("sasrec", parts, Path(folder), loss=loss)
    return float(np.median(np.diff(begun)))


class EnoughError(Exception):
    """Steps were timed."""


def step_of_rectools(events: np.ndarray, lengths: np.ndarray, loss: str) -> float:
    """Return the seconds of a step of rectools."""
    import logging

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import pandas as pd
    import torch
    from pytorch_lightning import Callback, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    torch.set_num_threads(1)
    ended: list[float] = []

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            ended.append(time.perf_counter())
            trainer.should_stop = len(ended) > 4 and ended[-1] - ended[0] > SECONDS

    def trainer() -> Trainer:
        return Trainer(
            max_steps=STEPS + 1, min_steps=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[Clock()],
            accelerator="cpu", devices=1,
        )  # fmt: skip

    model = SASRecModel(
        n_blocks=2, n_heads=1, n_factors=WIDTH, session_max_len=LENGTH, batch_size=ROWS,
        loss=LOSSES[loss], n_negatives=NEGATIVES, get_trainer_func=trainer,
    )  # fmt: skip
    places = np.concatenate([np.arange(length) for length in lengths])
    table = {
        Columns.User: np.repeat(np.arange(len(lengths)), lengths),
        Columns.Item: events,
        Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(places, unit="s"),
    }
    model.fit(Dataset.construct(pd.DataFrame(table)))
    return float(np.median(np.diff(ended)))


SIDES = {"idiolect": our_step, "rectools": step_of_rectools}


def counts(path: Path) -> None:
    from implicit.nearest_neighbours import CosineRecommender
    from scipy import sparse
    from threadpoolctl import threadpool_limits

    from idiolect.recommend.history_files import read_histories
    from idiolect.recommend.scorers.co_occurrence import Ease, ItemKnn, interaction_matrix
    from idiolect.recommend.splits import split
    from paired import compare

    warnings.filterwarnings("ignore")
    threadpool_limits(1)
    parts = split(read_histories(path))
    train, contexts = parts.train, parts.test.contexts[:5000]
    size = len(train.items)

    def matrix() -> sparse.csr_matrix:
        ones = np.ones(len(train.events), np.float32)
        made = sparse.csr_matrix((ones, (train.owners, train.events)), (len(train), size))
        made.sum_duplicates()
        made.data[:] = 1
        return made

    theirs = CosineRecommender(K=ItemKnn.neighbours, num_threads=1)

    def closed_form() -> np.ndarray:
        users = matrix()
        gram = (users.T @ users).toarray() + Ease.regularisation * np.eye(size, dtype=np.float32)
        inverse = np.linalg.inv(gram)
        weights: np.ndarray = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0)
        return weights

    print(f"{path.name}: {len(train.events):,} events, {size:,} items, {len(contexts):,} cases")
    fit = compare(lambda: ItemKnn.fit(train), lambda: theirs.fit(matrix(), show_progress=False))
    print(fit.line("item-knn, fit", 1), flush=True)
    ours, asked = ItemKnn.fit(train), interaction_matrix(contexts, size)
    order = np.arange(size)
    answer = compare(
        lambda: ours.best(contexts, 10, order, exclude_seen=False),
        lambda: theirs.recommend(
            np.arange(len(contexts)), asked, N=10, filter_already_liked_items=False
        ),
    )
    print(answer.line("item-knn, ten items for each case", 1), flush=True)
    if size <= MAX_EASE:
        ease = compare(lambda: Ease.fit(train), closed_form, pairs=3, warm=0)
        print(ease.line("ease, fit", 1), flush=True)
        np.testing.assert_allclose(Ease.fit(train).weights, closed_form(), atol=1e-3)


if __name__ == "__main__":
    main()
