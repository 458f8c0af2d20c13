"""ALS, texts as item vectors, two towers, LambdaMART on top, and answers from the index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from idiolect import Recommender
from idiolect.cli.main import app
from idiolect.errors import InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.networks.item_table import TextItems, WhiteningExperts
from idiolect.recommend.networks.train_network import train_network
from idiolect.recommend.scorer import Popularity
from idiolect.recommend.scorers.co_occurrence import Transitions
from idiolect.recommend.scorers.learned_blend import LearnedBlend
from idiolect.recommend.scorers.matrix_factors import Als
from idiolect.recommend.splits import split
from idiolect.recommend.train_recommender import fit_recommender


def _groups(users: int = 40) -> tuple[Histories, np.ndarray]:
    """Histories within one of two groups of ten items, and texts that tell the groups apart."""
    rng = np.random.default_rng(0)
    rows = [10 * (user % 2) + rng.permutation(9)[:6] for user in range(users)]
    names = tuple(f"p{i}" for i in range(20))  # p9 and p19 are in no event
    histories = Histories.of_numbers(tuple(map(str, range(users))), names, rows)
    vectors = np.zeros((20, 6), np.float32)
    vectors[:10, 0] = vectors[10:, 1] = 1
    noise = rng.standard_normal((20, 6)) * 0.2
    vectors += noise.astype(np.float32)
    return histories, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_als_solves_its_equations_and_knows_new_users() -> None:
    histories, _ = _groups()
    scorer = Als.fit(histories)
    matrix = np.zeros((len(histories), 20))
    for user, row in enumerate(histories.rows):
        matrix[user, row] = 1
    items, alpha = scorer.items.astype(np.float64), Als.confidence
    left = items.T @ items + Als.regularisation * np.eye(Als.factors)
    weights = 1 + alpha * matrix[0]
    left += alpha * (items.T * matrix[0]) @ items
    expected = np.linalg.solve(left, items.T @ (weights * matrix[0]))
    found = scorer.user_vectors([histories.rows[0], np.zeros(0, np.int64)])
    np.testing.assert_allclose(found[0], expected, rtol=2e-3, atol=1e-5)
    assert not found[1].any()
    scores = scorer.score([np.array([0, 1])])[0]
    assert scores[2:9].mean() > scores[10:19].mean() + 0.1


def test_whitening_experts_equal_a_loop() -> None:
    torch.manual_seed(0)
    experts = WhiteningExperts(5, 3, 4).eval()
    torch.nn.init.normal_(experts.means)
    torch.nn.init.normal_(experts.gate)
    texts = torch.randn(7, 5)
    for text, row in zip(texts, experts(texts), strict=True):
        gates = torch.softmax(text @ experts.gate, 0)
        wanted = sum(
            gates[e] * ((text - experts.means[e]) @ experts.maps[e]) for e in range(len(gates))
        )
        torch.testing.assert_close(row, wanted)


def test_an_item_without_events_has_its_text_alone() -> None:
    items = TextItems(torch.randn(4, 5), 3, own=True)
    assert items.own is not None
    torch.nn.init.ones_(items.own)
    rows = items.weight
    torch.testing.assert_close(rows[1:5], items.adaptor(items.vectors) + 1)
    assert not rows[0].any()
    torch.testing.assert_close(items(torch.tensor([[2]])), rows[2][None, None])


@pytest.mark.parametrize(
    ("name", "item_text"),
    [
        ("sasrec", "alone"),
        ("gru4rec", "added"),
        ("unisrec", None),
        ("two-tower", "alone"),
        ("sasrec", "trained"),
    ],
)
def test_networks_with_texts_recommend_what_nobody_has_had(
    name: str, item_text: str | None, tmp_path: Path
) -> None:
    histories, vectors = _groups()
    scorer = train_network(
        name, split(histories), tmp_path, vectors=vectors, item_text=item_text, epochs=25
    )
    scores = scorer.score([np.array([0, 1, 2]), np.array([10, 11, 12])])
    assert scores[0, 9] > scores[0, 19]
    assert scores[1, 19] > scores[1, 9]
    again = type(scorer).of_arrays(scorer.arrays()).score([np.array([0, 1, 2])])
    np.testing.assert_allclose(again[0], scores[0], rtol=1e-4, atol=1e-5)
    if item_text == "added":
        assert not scorer.arrays()["tokens.own"][[9, 19]].any()
    moved = (scorer.arrays().get("tokens.vectors", vectors) != vectors).any(1)
    assert moved.tolist() == [item_text == "trained" and n not in (9, 19) for n in range(20)]


def test_a_two_tower_model_learns_without_texts(tmp_path: Path) -> None:
    histories, _ = _groups()
    scorer = train_network("two-tower", split(histories), tmp_path, epochs=25)
    scores = scorer.score([np.array([0, 1, 2])])[0]
    assert scores[3:9].mean() > scores[10:19].mean()


def test_lambdamart_orders_candidates_and_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("idiolect.ranking.lambdamart._TREES", 10)
    histories, _ = _groups(120)
    parts = split(histories)
    fitted = {one.name: one.fit(parts.train) for one in (Transitions, Popularity)}
    prices = np.arange(20, dtype=np.float32)
    made = LearnedBlend.trained_on(
        fitted, parts.valid, parts.train, exclude_seen=True, prices=prices
    )
    assert {"transitions", "popularity", "price", "relative price"} <= set(made.names)
    context = np.array([0, 1])
    total, scaled = made.scaled([context])
    items = made.candidates(total[0], scaled[:, 0])
    assert not set(items) & {0, 1}  # seen
    table = dict(zip(made.names, made.table(context, items, scaled[:, 0]).T, strict=True))
    np.testing.assert_allclose(table["relative price"], prices[items] / 0.5)
    scores = made.score([context])[0]
    assert np.isfinite(scores).all()  # the caller hides items of the history, or does not
    order = np.argsort(-made.trees.predict(made.table(context, items, scaled[:, 0])), kind="stable")
    assert items[order[0]] in np.argsort(-scores)[:5]
    recommender = fit_recommender(histories, model="popularity", output_dir=tmp_path)
    recommender.scorer, recommender.record["model"] = made, "lambdamart"
    recommender.save(tmp_path)
    stored = Recommender.load(tmp_path)
    np.testing.assert_array_equal(stored.scorer.score([context])[0], scores)
    for excluded in (True, False):
        ids = {one.id for one in stored.recommend(["p0", "p1"], 20, excluded)}
        assert ids == {f"p{i}" for i in range(2 * excluded, 20)}
    assert np.isnan(made.table(np.array([0]), items, scaled[:, 0])[:, -1]).all()  # a free item


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("priced")
    histories, _ = _groups()
    rows = [{"user": u, "items": [f"p{i}" for i in r]} for u, r in enumerate(histories.rows)]
    (folder / "histories.jsonl").write_text("\n".join(map(json.dumps, rows)))
    items = [
        {"id": f"p{i}", "title": f"item {i}", "price": i, "stock": i % 2 == 0} for i in range(21)
    ]  # nobody has had the last one
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    return folder


@pytest.mark.parametrize("model", ["als", "transitions"])
def test_filters_and_diversity_with_and_without_an_index(model: str, priced: Path) -> None:
    run = priced / model
    command = ["train", str(priced / "histories.jsonl"), "--model", model, "-o", str(run)]
    runner = CliRunner()
    runner.invoke(
        app,
        ["recommend", *command, "--items", str(priced / "items.jsonl")],
        catch_exceptions=False,
    )
    recommender, history = Recommender.load(run), ["p1", "p2"]
    filter = {"price": {"$lt": 8}, "stock": True}
    found = recommender.recommend(history, filter=filter)
    assert {one.id for one in found} == {"p0", "p4", "p6"}
    plain = recommender.recommend(history, top_k=5)
    with pytest.raises(InputError, match="no item has the field"):
        recommender.recommend(history, filter={"weight": 1})
    if model == "transitions":
        with pytest.raises(InputError, match="no vectors"):
            recommender.build_index(run)
        return
    assert runner.invoke(app, ["recommend", "index", str(run)]).exit_code == 0
    indexed = Recommender.load(run)
    assert indexed.index is not None
    again = indexed.recommend(history, filter=filter)
    assert [one.id for one in again] == [one.id for one in found]
    assert [one.id for one in indexed.recommend(history, top_k=5)] == [one.id for one in plain]
    many = indexed.recommend_many([history, ["p11"]], top_k=5)
    assert [id for id, _ in many[0]] == [one.id for one in plain]
    popular = [one.id for one in recommender.recommend(["p20"], top_k=5)]
    assert [one.id for one in indexed.recommend(["p20"], top_k=5)] == popular
    assert [id for id, _ in indexed.recommend_many([["p20"]], top_k=5)[0]] == popular
    recommender.save(run)  # a model that replaces another has no index of that
    assert Recommender.load(run).index is None
    diverse = indexed.recommend(history, top_k=5, mmr_diversity=0.9)
    assert diverse[0].id == plain[0].id
    assert [one.id for one in diverse] != [one.id for one in plain]
