"""Cross-encoders: transformers' tokens and scores, learning, going on, and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.ranking.groups import QueryGroup
from idiolect.ranking.text_pairs import TextPairBatch
from idiolect.ranking.train_ranker import ranking_config
from idiolect.text.templates.pair_template import PairTemplate
from ranking import small
from training import models

PAIRS = [("w1 w2", "w3 w4 w5 w6"), ("w7", "w8"), ("w1 w2 w3", " ".join(["w9"] * 40))]
PLAN = ranking_config(batch_size=4, learning_rate=3e-3, save_steps=3)


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "llama"])
def test_transformers_gives_the_same_scores(model_type: str, tmp_path: Path) -> None:
    """Written here, read there: the same tokens of a pair, and the same logits."""
    ours = CrossEncoder.of(small.model(model_type), seed=3)
    ours.save(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert theirs.num_labels == 1
    rows = ours._read(PAIRS)
    if model_type == "bert":  # templates of one text only have no word on pairs
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        encoded = tokenizer([p[0] for p in PAIRS], [p[1] for p in PAIRS])
        assert [ids for ids, _ in rows] == encoded["input_ids"]
    scores = []
    for ids, types in rows:
        extra = {"token_type_ids": torch.tensor([types])} if model_type == "bert" else {}
        with torch.no_grad():
            scores.append(float(theirs(torch.tensor([ids]), **extra).logits[0, 0]))
    np.testing.assert_allclose(ours.score(PAIRS), scores, atol=1e-5)
    np.testing.assert_allclose(CrossEncoder.load(tmp_path).score(PAIRS), scores, atol=1e-5)


def test_two_classes_are_scored_by_their_log_odds(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, num_labels=2, pad_token_id=0,
    )  # fmt: skip
    theirs = transformers.BertForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    models.tokenizer(grown=False, template=True).save(tmp_path)
    ours = CrossEncoder.load(tmp_path)
    ((ids, types),) = ours._read(PAIRS[:1])
    with torch.no_grad():
        logits = theirs(torch.tensor([ids]), token_type_ids=torch.tensor([types])).logits[0]
    assert ours.score(PAIRS[:1])[0] == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)


def test_body_stays_and_grown_rows_come_along() -> None:
    model = models.model("bert")
    ours = CrossEncoder.of(model)
    ids = torch.tensor([[1, 5, len(models.OLD) + 2, 2]])
    before = model.network(ids).hidden_states
    assert torch.equal(ours.model.network(ids).hidden_states, before)
    assert "language" in model.network.heads, "the model given was changed"


def test_batching_does_not_change_scores() -> None:
    ours = CrossEncoder.of(small.model())
    many = [pair for pair in PAIRS for _ in range(3)]
    alone = np.concatenate([ours.score([pair]) for pair in many])
    np.testing.assert_allclose(ours.score(many), alone, atol=1e-6)


def test_long_documents_are_cut_and_counted() -> None:
    ours = CrossEncoder.of(small.model(), max_length=16)
    counts = EncodingCounts()
    ours.score(PAIRS, counts=counts)
    assert (counts.texts, counts.truncated) == (3, 1)
    ids = [len(ids) for ids, _ in ours._read(PAIRS)]
    assert max(ids) == 16
    # A query that leaves no room is cut as well, to half.
    long = ours._read([(" ".join(["w1"] * 30), " ".join(["w2"] * 30))])[0][0]
    assert len(long) == 16
    assert abs(long.count(models.OLD.index("w1")) - long.count(models.OLD.index("w2"))) <= 1
    assert counts.lost == 3 + 40 + ours._template.size - 16


def test_frame_without_separator_parts_by_a_line_break() -> None:
    tokenizer = small.model("gpt2").tokenizer
    frame = PairTemplate.of(tokenizer)
    assert frame.between == tuple(tokenizer.encode("\n", add_special_tokens=False))
    template = PairTemplate.of(small.model("bert").tokenizer)
    assert (template.before, template.between, template.after) == ((1,), (2,), (2,))
    assert template.segments == (0, 0, 0, 1, 1)


def test_parts_of_a_batch() -> None:
    rows = [([1, 2, 3], [0, 0, 1]), ([4], [0]), ([5, 6], [0, 1])]
    batch = TextPairBatch.of(rows, 0, [1.0, 0.0, 0.5], [2, 1])
    last = batch.part(slice(1, 2))
    assert last.input_ids.tolist() == [[5, 6]]
    assert (last.labels.tolist(), last.sizes, last.count) == ([0.5], (1,), 1)
    assert len(batch.part(slice(2, 2))) == 0


@pytest.mark.parametrize("loss", ["listwise", "pointwise"])
def test_learns(loss: str, tmp_path: Path) -> None:
    ours = CrossEncoder.of(small.model())
    rows = ours.model.network.tokens.weight.clone()
    ours.train(small.groups(40), output_dir=tmp_path, loss=loss, epochs=12, config=PLAN)  # type: ignore[arg-type]
    assert small.share_first(ours.score, small.groups(30, seed=1)) > 0.8
    assert torch.equal(ours.model.network.tokens.weight, rows), "published rows moved"
    saved = CrossEncoder.load(tmp_path / "model")
    np.testing.assert_array_equal(saved.score(PAIRS), ours.score(PAIRS))


def test_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = CrossEncoder.of(small.model()).train(
        small.groups(), output_dir=tmp_path / "a", config=PLAN
    )
    from idiolect.training import loop

    real = loop.Trainer._advance

    def stopped(self: loop.Trainer, *rest: object) -> bool:
        if self.done == 4:
            raise RuntimeError("ended")
        return real(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Trainer, "_advance", stopped)
    with pytest.raises(RuntimeError, match="ended"):
        CrossEncoder.of(small.model()).train(small.groups(), output_dir=tmp_path / "b", config=PLAN)
    monkeypatch.undo()
    rest = CrossEncoder.of(small.model()).train(
        small.groups(), output_dir=tmp_path / "b", config=PLAN
    )
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, rest.model.network.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="another run"):
        CrossEncoder.of(small.model()).train(
            small.groups(seed=2), output_dir=tmp_path / "b", config=PLAN
        )


def test_what_cannot_be_trained(tmp_path: Path) -> None:
    ours = CrossEncoder.of(small.model())
    with pytest.raises(InputError, match="no queries to train on"):
        ours.train([], output_dir=tmp_path)
    with pytest.raises(InputError, match="2 documents, but 1 labels"):
        ours.train([QueryGroup("w1", ("w1", "w2"), (1.0,))], output_dir=tmp_path)
    for label in (float("nan"), 2.0):
        with pytest.raises(InputError, match="not between 0 and 1"):
            ours.train([QueryGroup("w1", ("w1",), (label,))], output_dir=tmp_path)
    with pytest.raises(ConfigError, match="pointwise, listwise"):
        ours.train(small.groups(), output_dir=tmp_path, loss="pairwise")  # type: ignore[arg-type]


def test_models_that_are_none() -> None:
    with pytest.raises(ConfigError, match="no classification head"):
        CrossEncoder(small.model())
    with pytest.raises(ConfigError, match="from 8 to"):
        CrossEncoder.of(small.model(), max_length=10_000)
