"""LambdaMART: features, held-out ranking quality, and saved models."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from idiolect.errors import CheckpointError, InputError, MissingDependencyError
from idiolect.ranking import lambdamart as learned
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.ranking.evaluation.metrics import evaluate
from idiolect.ranking.features import Features
from idiolect.ranking.lambdamart import LambdaMART, cross_validate
from ranking import small

_DRAW = random.Random(0)
DOCUMENTS = {f"d{i}": " ".join(_DRAW.choices(small.WORDS, k=4)) for i in range(300)}
QUERIES = {f"q{i}": " ".join(_DRAW.choices(small.WORDS, k=2)) for i in range(30)}
PRICES = {name: _DRAW.random() for name in DOCUMENTS}
RUN = {query: dict.fromkeys(_DRAW.sample(sorted(DOCUMENTS), 25), 1.0) for query in QUERIES}
# Cheap documents are relevant, and neither search knows prices.
JUDGEMENTS = {
    query: {doc: float((PRICES[doc] < 0.5) + (PRICES[doc] < 0.2)) for doc in found}
    for query, found in RUN.items()
}


@pytest.fixture(scope="module")
def features() -> Features:
    return Features(
        QUERIES,
        bm25=BM25(DOCUMENTS),
        dense=Dense(small.encoder(), DOCUMENTS),
        dimensions=(8,),
        given={"price": PRICES, "noise": lambda query, doc: float(len(query + doc))},
    )


def test_features(features: Features) -> None:
    assert features.names == (
        "bm25", "bm25, share", "dense", "dense, share",
        "dense, 8 dimensions", "dense, 8 dimensions, share", "price", "noise",
    )  # fmt: skip
    bm25, docs = BM25(DOCUMENTS), list(RUN["q0"])
    table = features.table("q0", docs)
    assert table.shape == (25, 8)
    scores = bm25.score(QUERIES["q0"], docs)
    np.testing.assert_allclose(table[:, 0], scores)
    np.testing.assert_allclose(table[:, 1], scores / scores.max(), rtol=1e-6)
    assert table[:, 6].tolist() == pytest.approx([PRICES[doc] for doc in docs])


def test_features_not_known_and_infinite() -> None:
    unknown = Features(QUERIES, given={"price": {}})
    assert np.isnan(unknown.table("q0", ["d1"])).all()
    with pytest.raises(InputError, match="'price' of document 'd1' for query 'q0' is infinite"):
        Features(QUERIES, given={"price": {"d1": float("inf")}}).table("q0", ["d0", "d1"])
    with pytest.raises(InputError, match="'other' has no text"):
        unknown.table("other", ["d1"])
    with pytest.raises(InputError, match="no features"):
        Features(QUERIES)
    with pytest.raises(InputError, match="without embeddings"):
        Features(QUERIES, bm25=BM25(DOCUMENTS), dimensions=(8,))


def test_ranks_held_out_queries(features: Features) -> None:
    order = cross_validate(features, JUDGEMENTS, RUN, trees=30)
    assert set(order) == set(QUERIES)
    gain = evaluate(JUDGEMENTS, order).means["ndcg@10"]
    assert gain > 0.95
    assert evaluate(JUDGEMENTS, RUN).means["ndcg@10"] < 0.8


def test_no_query_is_ranked_by_a_model_trained_on_it(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    real, asked = LambdaMART.fit, []

    def fit(features: Features, judgements: dict, **options: int) -> LambdaMART:
        seen.append(set(judgements))
        return real(features, judgements, **options)

    def rerank(self: LambdaMART, features: Features, run: dict) -> dict:
        asked.append(set(run))
        return {}

    monkeypatch.setattr(LambdaMART, "fit", fit)
    monkeypatch.setattr(LambdaMART, "rerank", rerank)
    cross_validate(features, JUDGEMENTS, RUN, folds=4, trees=2)
    assert len(asked) == 4
    assert not any(own & others for own, others in zip(asked, seen, strict=True))
    assert set().union(*asked) == set(QUERIES)


def test_save_and_load(features: Features, tmp_path: Path) -> None:
    model = LambdaMART.fit(features, JUDGEMENTS, trees=10)
    again = LambdaMART.fit(features, JUDGEMENTS, trees=10)
    model.save(tmp_path / "model.json")
    loaded = LambdaMART.load(tmp_path / "model.json")
    first = model.rerank(features, RUN, top_k=5)
    assert first == loaded.rerank(features, RUN, top_k=5) == again.rerank(features, RUN, top_k=5)
    assert {len(scores) for scores in first.values()} == {5}
    assert next(iter(model.importance)) == "price"
    with pytest.raises(InputError, match="the model was trained with bm25"):
        loaded.rerank(Features(QUERIES, given={"price": PRICES}), RUN)


def test_damaged_trees(features: Features, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    LambdaMART.fit(features, JUDGEMENTS, trees=2).save(path)
    record = json.loads(path.read_text())
    for change in ({"features": ["price"]}, {"trees": "none"}):
        path.write_text(json.dumps(record | change))
        with pytest.raises(CheckpointError):
            LambdaMART.load(path)


def test_untrainable_input(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="different grades"):
        LambdaMART.fit(features, {"q0": {"d1": 1.0, "d2": 1.0}})
    clicks = {"q0": {"d1": 5000.0, "d2": 3.0}}
    with pytest.raises(InputError, match="a grade of 5000"):
        LambdaMART.fit(features, clicks)
    with pytest.raises(InputError, match="40 folds of 30 queries"):
        cross_validate(features, JUDGEMENTS, RUN, folds=40)

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(learned, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'idiolect\[ranking\]'"):
        LambdaMART.fit(features, JUDGEMENTS)
