"""Hard negatives against a plain search, with every guard; and documents encoded once for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idiolect.encoding import mining as module
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.mining import Miner, Mining, mine
from idiolect.encoding.pairs import Pair, PairTable
from idiolect.errors import ConfigError
from training import models


def _unit(rows: int, seed: int) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _table(queries: int, documents: int) -> PairTable:
    """Query i is answered by documents i and 2·i."""
    pairs = [Pair(f"q{i}", f"d{j}") for i in range(queries) for j in sorted({i, 2 * i})]
    return PairTable.of(pairs, [f"d{j}" for j in range(documents)])


@pytest.mark.parametrize("columns", [7, 1000])
def test_the_hardest_that_are_no_answers(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Every pair by itself, in plain loops; blocks of seven documents, or all at once."""
    monkeypatch.setattr(module, "_COLUMNS", columns)
    monkeypatch.setattr(module, "_ROWS", 5)
    table = _table(12, 60)
    queries, documents = _unit(12, 0), _unit(60, 1)
    found = mine(queries, documents, table, pool=4, margin=0.9)
    for (query, answer), row in zip(table.pairs, found, strict=True):
        scores = documents @ queries[query]
        limit = scores[answer] - 0.1 * abs(scores[answer])
        order = [
            number
            for number in np.argsort(-scores)
            if number not in table.right[query] and scores[number] <= limit
        ]
        assert row[row >= 0].tolist() == order[:4]


def test_what_scores_like_an_answer_is_left_out() -> None:
    table = PairTable.of([Pair("q", "answer")], ["near", "far", "other"])
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    documents = np.array([[0.8, 0], [0.79, 0], [0.7, 0], [0.1, 0]], dtype=np.float32)
    assert mine(query, documents, table, pool=3, margin=0.95).tolist() == [[2, 3, -1]]
    assert mine(query, documents, table, pool=3, margin=1.0).tolist() == [[1, 2, 3]]


def test_other_answers_are_never_negatives() -> None:
    table = _table(12, 60)
    found = mine(_unit(12, 0), _unit(60, 1), table, pool=60, margin=1.0)
    for (query, _), row in zip(table.pairs, found, strict=True):
        assert not table.right[query] & set(row.tolist())


@pytest.mark.parametrize("values", [{"count": 0}, {"count": 3, "pool": 2}, {"margin": 0.0}])
def test_what_makes_no_sense(values: Any) -> None:
    with pytest.raises(ConfigError):
        Mining(**values)


def _encoder() -> Encoder:
    return Encoder(models.model("bert"))


def _pairs() -> PairTable:
    texts = models.texts(30, seed=4)
    return PairTable.of(map(Pair, texts[:10], texts[10:20]), texts[20:])


def test_rounds_encode_queries_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, encoder = _pairs(), _encoder()
    read: list[int] = []
    usual = Encoder.encode

    def counted(self: Encoder, texts: Any, **options: Any) -> Any:
        read.append(len(texts))
        return usual(self, texts, **options)

    monkeypatch.setattr(Encoder, "encode", counted)
    miner = Miner(encoder, table, Mining(count=2, pool=5), tmp_path)
    assert read == [20], "each document once, when the run begins"
    first, second = miner.negatives(0), miner.negatives(1)
    assert read == [20, 10, 10]
    assert np.array_equal(miner.negatives(0), first)
    assert first.shape == (10, 2)
    assert not np.array_equal(first, second), "every round draws others"
    # A run that is gone on with finds the same, even if the weights are others by now.
    for parameter in encoder.model.network.parameters():
        parameter.data.mul_(-0.5)
    read.clear()
    again = Miner(_encoder(), table, Mining(count=2, pool=5), tmp_path)
    again.encoder = encoder
    assert np.array_equal(again.negatives(1), second)
    assert read == []


def test_rounds_mine_with_the_weights_of_the_moment(tmp_path: Path) -> None:
    table, encoder = _pairs(), _encoder()
    miner = Miner(encoder, table, Mining(count=5, pool=5), tmp_path)
    before = np.sort(miner.negatives(0), axis=1)
    for parameter in encoder.model.network.parameters():
        parameter.data.mul_(-0.5)
    assert not np.array_equal(np.sort(miner.negatives(1), axis=1), before)


def test_fewer_candidates_than_wanted(tmp_path: Path) -> None:
    table = PairTable.of([Pair("w1 w2", "w3 w4")], ["w5"])
    drawn = Miner(_encoder(), table, Mining(count=3, pool=4, margin=1.0), tmp_path).negatives(0)
    assert drawn.shape == (1, 3)
    assert set(drawn[0].tolist()) <= {1, -1}
