"""Two towers: they begin as their encoder, learn from a teacher, and are kept whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from idiolect.encoding.encoder import Encoder
from idiolect.errors import CheckpointError, ConfigError
from idiolect.ranking.groups import QueryGroup
from idiolect.ranking.tower_head import TowerHead
from idiolect.ranking.train_ranker import ranking_config
from idiolect.ranking.two_tower import TwoTower, soft_labels
from ranking import small

PAIRS = [("w1 w2", "w3 w4 w5"), ("w1 w2", "w6"), ("w7", "w6")]
PLAN = ranking_config(batch_size=4, learning_rate=3e-3, save_steps=3)


def _teacher(pairs: list[tuple[str, str]]) -> np.ndarray:
    """Knows what a right document is."""
    return np.array([4.0 if d.split()[0] in small.GOOD else -4.0 for _, d in pairs], np.float32)


def _separate(crossing: str) -> TwoTower:
    return TwoTower(small.encoder(), small.encoder(), crossing=crossing)  # type: ignore[arg-type]


def test_begins_as_its_encoder() -> None:
    encoder = small.encoder()
    towers = TwoTower(encoder)
    texts = ["w1 w2 w3", "w4", ""]
    vectors = towers.encode(texts, prompt_name="document")
    np.testing.assert_allclose(vectors, encoder.encode(texts), atol=1e-6)
    assert not vectors[2].any(), "an empty text has the zero vector"
    cosine = (encoder.encode(["w1 w2"]) @ encoder.encode(["w3 w4 w5"]).T)[0, 0]
    assert towers.score(PAIRS)[0] == pytest.approx(20 * cosine, rel=1e-5)


def test_weighted_pooling_by_hand() -> None:
    head = TowerHead(2, "residual")
    with torch.no_grad():
        head.weigh["query"].weight.copy_(torch.tensor([[1.0, 0.0]]))
    hidden = torch.tensor([[[0.0, 1.0], [1.0, 3.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    e = float(torch.e)
    expected = [e / (1 + e), (1 + 3 * e) / (1 + e)]
    assert head.pool(hidden, mask, "query")[0].tolist() == pytest.approx(expected)
    assert head.pool(hidden, mask, "document")[0].tolist() == pytest.approx([0.5, 2.0])


def test_residual_crossing_by_hand() -> None:
    head = TowerHead(2, "residual")
    weights = {
        "cross.inner.weight": torch.tensor([[1.0, -1.0], [0.0, 1.0]]),
        "cross.inner.bias": torch.zeros(2),
        "cross.output.weight": torch.tensor([[1.0, 2.0]]),
        "cross.output.bias": torch.tensor([0.5]),
    }
    head.load_state_dict(head.state_dict() | weights)
    # The larger of both is (1, 2); the layer adds (max(1 - 2, 0), 2) = (0, 2).
    score = head(torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 2.0]]))
    assert score.tolist() == pytest.approx([1 * 1 + 2 * 4 + 0.5])


@pytest.mark.parametrize("crossing", ["cosine", "residual"])
@pytest.mark.parametrize("loss", ["listwise", pytest.param("pointwise", marks=pytest.mark.slow)])
def test_learns_from_a_teacher(crossing: str, loss: str, tmp_path: Path) -> None:
    towers = _separate(crossing) if crossing == "residual" else TwoTower(small.encoder())
    rows = towers.towers["document"].model.network.tokens.weight.clone()
    towers.distill(
        _teacher, small.groups(40), output_dir=tmp_path, loss=loss, epochs=12, config=PLAN
    )  # type: ignore[arg-type]
    assert small.share_first(towers.score, small.groups(30, seed=1)) > 0.8
    assert torch.equal(towers.towers["document"].model.network.tokens.weight, rows)
    assert not hasattr(towers.towers["query"].model.network, "two_tower")
    loaded = TwoTower.load(tmp_path / "model")
    assert (loaded.shared, loaded.crossing) == (towers.shared, crossing)
    np.testing.assert_array_equal(loaded.score(PAIRS), towers.score(PAIRS))


def test_documents_may_be_read_beforehand() -> None:
    towers = _separate("residual")
    queries, documents = ([pair[i] for pair in PAIRS] for i in (0, 1))
    apart = towers.cross(
        towers.encode(queries, prompt_name="query"),
        towers.encode(documents, prompt_name="document"),
    )
    np.testing.assert_allclose(towers.score(PAIRS), apart, atol=1e-6)


def test_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from idiolect.training import loop

    groups = small.groups()
    whole = _separate("cosine").train(groups, output_dir=tmp_path / "a", config=PLAN)
    real = loop.Trainer._advance

    def stopped(self: loop.Trainer, *rest: object) -> bool:
        if self.done == 4:
            raise RuntimeError("ended")
        return real(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Trainer, "_advance", stopped)
    with pytest.raises(RuntimeError, match="ended"):
        _separate("cosine").train(groups, output_dir=tmp_path / "b", config=PLAN)
    monkeypatch.undo()
    rest = _separate("cosine").train(groups, output_dir=tmp_path / "b", config=PLAN)
    assert rest.fingerprint == whole.fingerprint


def test_soft_labels() -> None:
    group = QueryGroup("w9", (f"{small.GOOD[0]} w9", f"{small.BAD[0]} w9"), (0.0, 0.0))
    (soft,) = soft_labels(_teacher, [group], loss="listwise", temperature=2)
    assert soft.labels == pytest.approx((1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))))
    (soft,) = soft_labels(_teacher, [group], loss="pointwise")
    assert soft.labels == pytest.approx((1 / (1 + np.exp(-4)), 1 / (1 + np.exp(4))))
    with pytest.raises(ConfigError, match="temperature"):
        soft_labels(_teacher, [group], loss="listwise", temperature=0)


def test_files_of_different_models_are_rejected(tmp_path: Path) -> None:
    TwoTower(small.encoder()).save(tmp_path)
    other = small.encoder()
    with torch.no_grad():
        next(p for n, p in other.model.network.named_parameters() if "feed_forward" in n).add_(1)
    other.save(tmp_path / "query")
    with pytest.raises(CheckpointError, match="of different models"):
        TwoTower.load(tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        TwoTower.load(tmp_path)


def test_what_cannot_be_crossed() -> None:
    with pytest.raises(ConfigError, match="cosine, residual"):
        TwoTower(small.encoder(), crossing="sum")  # type: ignore[arg-type]
    wide = Encoder(small.model("bert", hidden_size=32))
    with pytest.raises(ConfigError, match="16 and 32"):
        TwoTower(small.encoder(), wide)


def test_record_is_readable(tmp_path: Path) -> None:
    TwoTower(small.encoder()).save(tmp_path)
    assert json.loads((tmp_path / "two_tower.json").read_text())["crossing"] == "cosine"
    assert Encoder.load(tmp_path / "query").dimensions == 16
