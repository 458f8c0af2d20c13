"""Tuning learns, keeps frozen rows, caches gradients exactly and resumes after a kill."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoding import tuning, workers
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.contrastive import ContrastiveObjective
from idiolect.encoding.objectives.pair_batches import PairBatch, PairReader
from idiolect.encoding.pairs import Pair, PairTable
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.encoding.tune import tune
from idiolect.encoding.tune_on_text import tune_on_text
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.nn.embedding import ExtendedRows
from idiolect.text.text_file import TextFile
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.objectives import objective_registry
from idiolect.training.objectives.contrastive_losses import KL, InfoNCE, Margin, MarginMSE, Triplet
from idiolect.training.objectives.objective_registry import find_objective
from idiolect.training.training_config import TrainingConfig
from training import models


def _losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def _found(encoder: Encoder, pairs: list[Pair], **options: Any) -> float:
    """Share of queries whose own document is the nearest."""
    queries = encoder.encode([pair.query for pair in pairs], **options)
    documents = encoder.encode([pair.document for pair in pairs], **options)
    return float(np.mean((queries @ documents.T).argmax(1) == np.arange(len(pairs))))


def test_tuning_finds_more(tmp_path: Path) -> None:
    """Each document is its query in other words, a mapping that the encoder has to learn."""
    texts = models.texts(24, seed=8)
    pairs = [
        Pair(text, " ".join(f"w{(int(word[1:]) + 18) % 36}" for word in text.split()))
        for text in texts
    ]
    encoder = tuning.encoder()
    before = _found(encoder, pairs)
    tuned = tune(
        encoder,
        pairs,
        output_dir=tmp_path,
        dimensions=(4,),
        epochs=15,
        unfreeze_original_rows=True,
        config=TrainingConfig(batch_size=12, learning_rate=2e-2, min_lr_ratio=0.0),
    )
    assert tuned is encoder
    assert not encoder.model.network.training
    assert before < 0.3
    assert _found(encoder, pairs) > 0.8
    assert _found(encoder, pairs, dimensions=4) > 0.6
    again = Encoder.load(tmp_path / "model")
    assert again.trained_dimensions == (4,)
    assert again.fingerprint == encoder.fingerprint
    losses = _losses(tmp_path)
    assert len(losses) == 30, "fifteen epochs of two steps"
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("train", ["rows", "rows+lora", "body", "all"])
def test_published_rows_stay(tmp_path: Path, train: Any) -> None:
    encoder = tuning.encoder()
    before = {n: p.detach().clone() for n, p in encoder.model.network.named_parameters()}
    tuning_run = {
        "steps": 3,
        "train": train,
        "config": TrainingConfig(batch_size=8, learning_rate=1e-2),
    }
    tune(encoder, tuning.pairs(), output_dir=tmp_path, **tuning_run)
    after = dict(encoder.model.network.named_parameters())
    moved = {name for name, old in before.items() if not torch.equal(old, after[name])}
    assert "tokens.weight.original" not in moved
    assert ("tokens.weight.added" in moved) == (train != "body")
    layers = {name for name in moved if ".layers." in name}
    kinds = {"rows": 0, "rows+lora": 4}  # queries and values of two layers
    assert len(layers) == kinds.get(train, len([n for n in before if ".layers." in n]))
    assert (tmp_path / "adapter").exists() == (train == "rows+lora")
    assert not any(name.startswith(("heads", "pooler")) for name in moved)


def test_rows_move_only_when_they_are_unfrozen(tmp_path: Path) -> None:
    encoder = tuning.encoder()
    rows = encoder.model.network.tokens.weight
    assert isinstance(rows, ExtendedRows)
    before = rows.original.detach().clone()
    plan = TrainingConfig(batch_size=8, learning_rate=1e-2)
    tune(
        encoder,
        tuning.pairs(),
        output_dir=tmp_path,
        steps=2,
        config=plan,
        unfreeze_original_rows=True,
    )
    assert not torch.equal(rows.original, before)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_cached_gradients_do_not_change_the_run(tmp_path: Path, dropout: float) -> None:
    """A whole run, step by step, with eight texts at once and with all."""
    found = []
    for at_once in (8, None):
        plan = TrainingConfig(batch_size=12, micro_batch_size=at_once, learning_rate=5e-3)
        encoder, out = tuning.encoder(dropout), tmp_path / str(at_once)
        tune(encoder, tuning.pairs(), output_dir=out, steps=4, config=plan)
        found.append((_losses(out), encoder.encode(models.texts(5))))
    if not dropout:  # texts that are read together draw other dropout than one after another
        np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
        np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-3)
    else:
        assert found[0][0] != found[1][0]


def _scored() -> list[Pair]:
    texts = models.texts(24, seed=3)
    return [
        Pair(query, document, (negative,), (2.0, 0.5))
        for query, document, negative in zip(texts[:8], texts[8:16], texts[16:], strict=True)
    ]


@pytest.mark.parametrize(
    "loss", [InfoNCE(bidirectional=True), Triplet(), Margin(), MarginMSE(), KL()], ids=repr
)
def test_every_loss_falls(tmp_path: Path, loss: Any) -> None:
    plan = TrainingConfig(batch_size=8, learning_rate=1e-2)
    tune(tuning.encoder(0.0), _scored(), output_dir=tmp_path, loss=loss, steps=12, config=plan)
    losses = _losses(tmp_path)
    assert losses[-1] < losses[0]


def test_a_batch_of_pairs() -> None:
    table = PairTable.of(
        [
            Pair("w1", "w2", ("w3", "w4")),
            Pair("w1", "w5"),  # the same query again
            Pair("w6", "w2"),  # the same document again
            Pair("w7", "w8", ("w3",)),
        ],
        corpus=["w9"],
    )
    assert list(table.documents) == ["w2", "w5", "w8", "w3", "w4", "w9"]
    # w9; none; w4 and w9; w3, which that pair has already.
    mined = np.array([[5, -1], [-1, -1], [4, 5], [3, -1]])
    reader = PairReader(table, tuning.encoder().reader)
    batch = PairBatch.of(table, [0, 1, 2, 3], reader, mined=mined)
    assert len(batch.queries) == 3
    assert batch.query.tolist() == [0, 0, 1, 2]
    # Columns in the order they first come: w2 w5 w8, w3 w4 w9.
    assert len(batch.documents) == 6
    candidates = batch.candidates
    assert candidates.positive.tolist() == [0, 1, 0, 2]
    assert candidates.negatives.tolist() == [[3, 4, 5], [-1, -1, -1], [4, 5, -1], [3, -1, -1]]
    ignored = [(row, column) for row, column in candidates.ignored.nonzero().tolist()]
    assert ignored == [(0, 1), (1, 0)], "the other answer of w1, for both of its pairs"
    assert candidates.scores is None
    assert batch.tokens == 9 * 3  # each text between <s> and </s>, and each once


def test_a_text_is_never_its_own_negative() -> None:
    """w2 is a query and another's document: as a document it is no negative of itself."""
    table = PairTable.of([Pair("w1", "w2"), Pair("w2", "w3")])
    batch = PairBatch.of(table, [0, 1], PairReader(table, tuning.encoder().reader))
    assert batch.candidates.ignored.tolist() == [[False, False], [True, False]]


def test_an_epoch_holds_every_pair_at_most_once() -> None:
    epochs = ShuffledEpochs(10, rows=4, seed=1)
    assert epochs.steps == 2
    for number in range(3):
        drawn = [epochs.take() for _ in range(2)]
        assert {one.epoch for one in drawn} == {number}
        sources = [source for one in drawn for source in one.sources]
        assert len(set(sources)) == 8
    state, following = epochs.state(), epochs.take()
    again = ShuffledEpochs(10, rows=4, seed=1)
    again.restore(state)
    assert again.take() == following
    assert ShuffledEpochs(3, rows=32).take().sources in (
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An uninterrupted run in a separate process, and its duration in seconds."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("warm", "run"):  # the first starts the server of processes
        started = time.perf_counter()
        process = tuning.forks.Process(target=tuning.run, args=(folder / name,))
        process.start()
        process.join(120)
        assert process.exitcode == 0
    return folder / "run", time.perf_counter() - started


def test_a_killed_run_ends_bit_identical(tmp_path: Path, whole: tuple[Path, float]) -> None:
    reference, seconds = whole
    out, kills, seed = tmp_path / "run", 0, time.time_ns()
    draw = random.Random(seed)
    while True:
        process = tuning.forks.Process(target=tuning.run, args=(out,))
        process.start()
        process.join(draw.uniform(0, seconds) if kills < 4 else 120)
        if process.exitcode is not None:
            assert process.exitcode == 0, f"seed {seed}"
            break
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
    ours, wanted = tuning.outcome(out), tuning.outcome(reference)
    assert ours.keys() == wanted.keys(), f"seed {seed}"
    for name, data in wanted.items():
        assert ours[name] == data, f"{name} differs, seed {seed}"


def test_another_run_is_refused(tmp_path: Path) -> None:
    tuning.run(tmp_path, steps=1)
    for other, words in (
        ({"steps": 2}, "steps was 1 and is 2"),
        ({"loss": Triplet()}, "loss was"),
        ({"mining": None}, "mining was"),
        ({"corpus": ()}, "pairs was"),
    ):
        with pytest.raises(CheckpointError, match=words):
            tuning.run(tmp_path, **{"steps": 1, **other})


def test_texts_are_truncated_at_the_configured_length(tmp_path: Path) -> None:
    encoder = tuning.encoder()
    plan = TrainingConfig(batch_size=8, max_length=5, learning_rate=1e-3)
    tune(encoder, tuning.pairs(8), output_dir=tmp_path, steps=1, config=plan)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["tokens"] <= 16 * 5
    assert encoder.max_length == 64


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dimensions": (99,)}, ConfigError, "99 dimensions; the model has 16"),
        ({"steps": 0}, ConfigError, "a run of 0 steps"),
        ({"loss": KL()}, InputError, "needs a teacher's scores"),
        ({"train": "head"}, ConfigError, "parameters to train: 'head'"),
    ],
)
def test_bad_arguments(tmp_path: Path, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        tune(tuning.encoder(), tuning.pairs(8), output_dir=tmp_path, **options)


def test_default_learning_rates() -> None:
    encoder = tuning.encoder()
    assert tuning_config(encoder).learning_rate == 2e-5
    assert tuning_config(encoder, "rows+lora").learning_rate == 2e-4
    assert tuning_config(encoder, "rows").learning_rate == pytest.approx(0.1 / 50, rel=0.1)
    assert tuning_config(encoder, batch_size=4, learning_rate=0.1).batch_size == 4


@pytest.mark.parametrize("objective", ["simcse", "tsdae"])
@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_the_loss_on_text_falls(tmp_path: Path, objective: Any, model_type: str) -> None:
    fields = {"hidden_dropout_prob": 0.1} if model_type == "bert" else {}
    encoder = Encoder(models.model(model_type, **fields))
    parameters = {name for name, _ in encoder.model.network.named_parameters()}
    texts = models.texts(40)
    plan = TrainingConfig(batch_size=10, learning_rate=1e-2)
    tune_on_text(encoder, texts, output_dir=tmp_path, objective=objective, epochs=6, config=plan)
    losses = _losses(tmp_path)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert {name for name, _ in encoder.model.network.named_parameters()} == parameters
    assert Encoder.load(tmp_path / "model").fingerprint == encoder.fingerprint


@pytest.mark.parametrize("objective", ["simcse", "tsdae", "imitate"])
def test_a_run_on_text_resumes(
    tmp_path: Path, objective: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after a checkpoint, the run ends with the weights of an uninterrupted one."""
    from idiolect.training.checkpoint import RunFolder

    def run(out: Path) -> Encoder:
        plan = TrainingConfig(batch_size=10, learning_rate=1e-2, save_steps=3)
        return tune_on_text(
            tuning.encoder(),
            models.texts(40),
            output_dir=out,
            objective=objective,
            teacher=tuning.teacher() if objective == "imitate" else None,
            steps=7,
            config=plan,
        )

    whole = run(tmp_path / "whole")
    usual = RunFolder.save

    def stop(self: RunFolder, checkpoint: Any) -> None:
        usual(self, checkpoint)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts")
    assert run(tmp_path / "parts").fingerprint == whole.fingerprint


def test_unusable_texts_and_objectives(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dropout"):
        tune_on_text(tuning.encoder(0.0), models.texts(9), output_dir=tmp_path)
    with pytest.raises(InputError, match="1 different texts"):
        tune_on_text(tuning.encoder(), ["w1", "w1"], output_dir=tmp_path)
    with pytest.raises(ConfigError, match="unknown objective 'mlm'"):
        tune_on_text(tuning.encoder(), models.texts(9), output_dir=tmp_path, objective="mlm")
    with pytest.raises(ConfigError, match="'pairs' trains on pairs, not on text"):
        tune_on_text(tuning.encoder(), models.texts(9), output_dir=tmp_path, objective="pairs")


def test_an_objective_for_other_networks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(find_objective("tune", "simcse"), network_kinds=("causal",))
    monkeypatch.setitem(objective_registry._ENTRIES, ("tune", "simcse"), entry)
    with pytest.raises(ConfigError, match="'simcse' trains causal networks") as caught:
        tune_on_text(tuning.encoder(), models.texts(9), output_dir=tmp_path)
    assert (
        caught.value.hint
        == "choose 'titles' or 'headings' or 'crops' or 'parts' or 'tsdae' or 'imitate'"
    )


@pytest.mark.parametrize("room", [0, 1000])
def test_ids_are_kept_while_there_is_room(room: int) -> None:
    table = PairTable.of(tuning.pairs(6))
    reader = PairReader(table, tuning.encoder().reader, kept_tokens=room)
    first = reader.read("document", [0, 3])
    again = reader.read("document", [3, 1, 0])
    assert [again[2], again[0]] == first
    expected = tuning.encoder().reader.read([table.documents[1]], "document", EncodingCounts())
    assert list(again[1]) == expected[0]
    assert reader.counts.texts == (3 if room else 5)


def test_an_objective_requests_the_negatives_of_its_epoch() -> None:
    table = PairTable.of(tuning.pairs(6), models.texts(4, seed=9))

    class Given:
        asked: list[int] = []  # noqa: RUF012

        def negatives(self, number: int) -> Any:
            self.asked.append(number)
            return np.full((6, 1), 6 + number)

    objective = ContrastiveObjective(tuning.encoder(), table, InfoNCE(), miner=Given())  # type: ignore[arg-type]
    epochs = ShuffledEpochs(6, rows=3)
    for _ in range(4):
        batch = objective.prepare(epochs.take())
        column = int(batch.candidates.negatives[0, 0])
        mined = table.documents[6 + Given.asked[-1]]
        assert (
            list(batch.documents[column])
            == tuning.encoder().reader.read([mined], None, EncodingCounts())[0]
        )
    assert Given.asked == [0, 0, 1, 1]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """In-batch negatives are those of the whole step, whichever process reads them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*command, str(Path(workers.__file__)), str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    workers.train(tmp_path / "one")
    for what in ("pairs", "text", "imitation"):
        np.testing.assert_allclose(
            _losses(tmp_path / "two" / what), _losses(tmp_path / "one" / what), rtol=1e-4
        )
        # Weights without a gradient, such as the keys' biases, differ by rounding errors that Adam
        # scales up. They do not affect the vectors.
        one, two = (
            Encoder.load(tmp_path / side / what / "model").encode(models.texts(10))
            for side in ("one", "two")
        )
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_a_corpus_is_not_held_in_memory() -> None:
    """Documents among which negatives are mined are on disk: 80 MB of text cost a few MB."""

    def corpus() -> Iterator[str]:
        for number in range(2000):
            yield f"{number} " + "x" * 40_000

    tracemalloc.start()
    table = PairTable.of([Pair("a", "b")], corpus())
    texts = TextFile.distinct(corpus())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table.documents) == len(texts) + 1 == 2001
    assert table.documents[1000][:4] == texts[999][:4] == "999 "
    assert peak < 8e6
