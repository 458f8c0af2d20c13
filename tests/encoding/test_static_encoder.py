"""Encoders without layers, and of the first layers only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from encoding.models import WORDS, tiny_encoder
from idiolect.encoding import depth
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.export.table_export import export_table
from idiolect.encoding.objectives.text_parts import crop
from idiolect.encoding.pairs import Pair, PairTable
from idiolect.encoding.static_encoder import should_whiten
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.encoding.tune import tune
from idiolect.encoding.tune_on_text import tune_on_text
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.strategies import greedy
from idiolect.models.language_model import LanguageModel
from idiolect.models.shallow import first_layers
from idiolect.vocabulary.extend.extend import extend

TEXTS = ["a b c", "d", "p o n m l k j i h g f e", "", "a b c d e " * 200]
BASE = "idiolect-base"


def static(model_type: str = "llama", **options: bool) -> Encoder:
    return Encoder(tiny_encoder(model_type).model, layers=0, **options)


def test_a_vector_is_the_mean_of_its_rows() -> None:
    encoder = static("bert", normalize=False)
    rows = encoder.model.network.tokens.weight.detach().numpy()
    vectors = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        words = [rows[WORDS.index(word)] for word in text.split()]
        expected = np.mean(words, axis=0) if words else np.zeros(16)
        np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_weights_count_and_train() -> None:
    encoder = static(normalize=False)
    network = encoder.model.network
    assert isinstance(network.token_weights.values, torch.nn.Parameter)
    network.token_weights.values.data[WORDS.index("a")] = 3.0
    rows = network.tokens.weight.detach().numpy()
    expected = (3 * rows[WORDS.index("a")] + rows[WORDS.index("b")]) / 2
    np.testing.assert_allclose(encoder.encode(["a b"])[0], expected, atol=1e-6)
    grid, mask = encoder.read_rows(encoder.reader.read(["a b"], None, counts := EncodingCounts()))
    np.testing.assert_allclose(grid[0].detach().mean(0), expected, atol=1e-6)
    assert mask.sum() == counts.tokens == 2


def test_the_language_model_is_unchanged(tmp_path: Path) -> None:
    model = tiny_encoder("llama").model
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    encoder = Encoder(model, layers=0)
    pairs = [
        Pair(f"{a} {b}", f"{b} {c}") for a, b, c in zip("abcdef", "bcdefg", "cdefgh", strict=True)
    ]
    config = tuning_config(encoder, batch_size=6)
    assert tuning_config(encoder).batch_size == 512
    plain = encoder.encode(TEXTS)
    tune(encoder, pairs, output_dir=tmp_path / "run", steps=5, config=config)
    assert encoder.projection is None
    assert not np.allclose(plain, encoder.encode(TEXTS))
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_what_is_saved_has_equal_vectors_elsewhere(tmp_path: Path) -> None:
    encoder = static("bert")
    encoder.model.network.token_weights.values.data[5] = 0.5
    encoder.save(tmp_path)
    vectors = encoder.encode(TEXTS[:3])
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS[:3]), vectors, atol=1e-6)
    again = Encoder.load(tmp_path)
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    assert again.fingerprint == encoder.fingerprint
    encoder.projection = encoder.fit_projection(TEXTS[:3], whiten=True)  # kept as a layer
    encoder.save(tmp_path / "projected")
    theirs = SentenceTransformer(str(tmp_path / "projected"), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS[:2]), encoder.encode(TEXTS[:2]), atol=1e-5)
    again = Encoder.load(tmp_path / "projected")
    np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_folding_a_projection_keeps_vectors() -> None:
    encoder = static()
    fitted = encoder.fit_projection(TEXTS[:3], whiten=True)
    encoder.projection = fitted
    before = encoder.encode(TEXTS)
    encoder.projection = None
    encoder.use_projection(fitted)
    assert encoder.projection is None
    np.testing.assert_allclose(encoder.encode(TEXTS), before, atol=1e-5)


def test_new_tokens_do_no_harm_at_the_start() -> None:
    base = LanguageModel.load(BASE)
    texts = ["the eigenvalue of a matrix", "Cholesky decomposition", "a plain text"]
    plain = Encoder(LanguageModel.load(BASE), layers=0)
    grown = Encoder(extend(base, ["eigenvalue", "Cholesky"]), layers=0)
    assert grown.model.tokenizer.encode(texts[0]) != plain.model.tokenizer.encode(texts[0])
    np.testing.assert_allclose(grown.encode(texts), plain.encode(texts), atol=1e-5)
    plain.project(texts, whiten=True)
    grown.project(texts, whiten=True)
    np.testing.assert_allclose(grown.encode(texts), plain.encode(texts), atol=1e-4)


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_the_first_layers_are_those_of_transformers(model_type: str, tmp_path: Path) -> None:
    whole = tiny_encoder(model_type)
    shallow = Encoder(whole.model, layers=1)
    assert len(whole.model.network.blocks) == 2
    assert len(shallow.model.network.blocks) == 1
    assert not np.allclose(shallow.encode(["a b"]), whole.encode(["a b"]))
    shallow.save(tmp_path)
    theirs = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS[:3]), shallow.encode(TEXTS[:3]), atol=1e-5)
    assert transformers.AutoConfig.from_pretrained(tmp_path).num_hidden_layers == 1
    assert shallow.model.network.blocks[0] is whole.model.network.blocks[0]


@pytest.mark.parametrize("layers", [3, -1, True, "2", 1.0])
def test_impossible_layers_are_refused(layers: int) -> None:
    with pytest.raises((ConfigError, InputError), match="layers"):
        Encoder(tiny_encoder("llama").model, layers=layers)


def test_what_a_static_encoder_cannot_do(tmp_path: Path) -> None:
    encoder = static()
    with pytest.raises(ConfigError, match="last pooling"):
        Encoder(encoder.model, pooling="last")
    with pytest.raises(InputError, match="language-model head"):
        greedy(encoder.model.network, torch.tensor([[4, 5]]), max_new_tokens=2)
    with pytest.raises(ConfigError, match="cannot be cut"):
        first_layers(encoder.model, 1)


def test_crops_train_without_pairs(tmp_path: Path) -> None:
    texts = [" ".join(WORDS[4 + (i * k) % 16] for k in range(1, 30)) for i in range(1, 16)]
    encoder = static()
    config = tuning_config(encoder, batch_size=8)
    tune_on_text(encoder, texts, output_dir=tmp_path, objective="crops", steps=6, config=config)
    assert encoder.model.settings["whitened"]
    again = Encoder.load(tmp_path / "model")
    np.testing.assert_array_equal(again.encode(texts), encoder.encode(texts))
    assert not should_whiten(again)


@given(st.lists(st.sampled_from(WORDS), max_size=40), st.integers(0, 99))
def test_a_crop_and_the_rest_are_the_text(words: list[str], seed: int) -> None:
    query, document = crop(words, np.random.default_rng(seed))
    if len(words) < 2:
        assert query == document == words
        return
    assert sorted(query + document) == sorted(words)
    assert 1 <= len(query) <= min(10, len(words) // 2)
    assert len(query) >= min(3, len(words) // 2)


def _pairs(count: int) -> list[Pair]:
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS[4:], 5)) for _ in range(count)]
    return [Pair(text, " ".join(sorted(text.split()))) for text in texts]


@pytest.mark.parametrize("best", [0, 1])
def test_the_depth_is_chosen_by_pairs_kept_out(
    best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tiny_encoder("llama")
    before = {name: tensor.clone() for name, tensor in whole.model.network.state_dict().items()}
    learnt: list[set[str]] = []

    def measure(encoder: Encoder, table: PairTable, queries: list[int]) -> float:
        learnt.append({table.queries[number] for number in queries})
        return float(len(encoder.model.network.blocks) == best) / 2

    monkeypatch.setattr(depth, "_ndcg", measure)
    monkeypatch.setattr(depth, "candidate_depths", lambda layers: (0, 1, layers))
    options = {"output_dir": tmp_path, "steps": 2, "layers": "auto", "config": {"batch_size": 8}}
    tuned = tune(whole, _pairs(60), **options)
    assert len(tuned.model.network.blocks) == best
    record = json.loads((tmp_path / "depths.json").read_text())
    assert (record["layers"], [one["layers"] for one in record["trials"]]) == (best, [0, 1, 2])
    assert all(one["seconds"] > 0 for one in record["trials"])
    assert f"layers {best} chosen" in capsys.readouterr().err
    assert learnt[0] == learnt[1]
    assert len(learnt[0]) == 12
    if best == 0:
        for name, tensor in whole.model.network.state_dict().items():
            assert torch.equal(tensor, before[name])
    monkeypatch.setattr(depth, "_ndcg", None)
    again = tune(tiny_encoder("llama"), _pairs(60), **options)
    assert again.fingerprint == tuned.fingerprint, "without new trials"
    with pytest.raises(CheckpointError, match="other pairs"):
        tune(tiny_encoder("llama"), _pairs(61), **options)


def test_the_measure_is_ndcg() -> None:
    table = PairTable.of([Pair("a", "a b"), Pair("b", "c d"), Pair("c", "b c")])
    encoder = static(normalize=False)
    rows = torch.zeros(len(WORDS), 16)
    for number, word in enumerate("abcd"):
        rows[WORDS.index(word), number] = 1.0
    encoder.model.network.tokens.weight.data = rows
    # "a" and "c" find their document (the latter after "c d", of equal score); "b" ranks its last.
    expected = np.mean([1.0, 1 / 2, 1 / np.log2(3)])
    assert depth._ndcg(encoder, table, [0, 1, 2]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("encoder", "pairs", "message"),
    [(static(), 60, "the encoder is static"), (tiny_encoder(), 30, "30 different queries")],
)
def test_a_depth_that_cannot_be_chosen(
    encoder: Encoder, pairs: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, InputError), match=message):
        tune(encoder, _pairs(pairs), output_dir=tmp_path, layers="auto")
    with pytest.raises(ConfigError, match="layers is 'auto'"):
        Encoder(tiny_encoder("llama").model, layers="auto")


def test_fewer_pairs_than_a_batch_are_one_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tune(static(), _pairs(5), output_dir=tmp_path, epochs=2)
    assert "all 5 pairs, not 512" in caplog.text
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    with pytest.raises(InputError, match="empty"):
        tune(static(), [Pair(" ", "")], output_dir=tmp_path / "empty")


def test_matryoshka_of_a_static_encoder(tmp_path: Path) -> None:
    config = {"batch_size": 20}
    encoder = tune(
        static(), _pairs(60), output_dir=tmp_path, dimensions=(4,), steps=4, config=config
    )
    again = Encoder.load(tmp_path / "model")
    assert again.trained_dimensions == (4,)
    assert again.projection is None
    short = again.encode(TEXTS[:3], dimensions=4)
    whole = encoder.encode(TEXTS[:3])[:, :4]
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu", truncate_dim=4)
    np.testing.assert_allclose(
        theirs.encode(TEXTS[:3], normalize_embeddings=True), short, atol=1e-5
    )


def test_rows_of_8_bits_are_read_as_they_are_everywhere(tmp_path: Path) -> None:
    encoder = static("bert")
    encoder.model.network.token_weights.values.data[5] = 0.5
    for precision in ("fp32", "int8"):
        encoder.save(tmp_path / precision, precision=precision)
    stored = load_file(tmp_path / "int8" / "model.safetensors")
    assert stored["embeddings"].dtype == torch.int8
    again = Encoder.load(tmp_path / "int8")
    vectors = again.encode(TEXTS[:3])
    assert (vectors * encoder.encode(TEXTS[:3])).sum(1).min() > 0.9995
    theirs = SentenceTransformer(str(tmp_path / "int8"), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS[:3]), vectors, atol=1e-6)
    model2vec = pytest.importorskip("model2vec", reason="reads the rows as well")

    small = model2vec.StaticModel.from_pretrained(tmp_path / "int8")
    np.testing.assert_allclose(small.encode(TEXTS[:3], max_length=None), vectors, atol=1e-6)
    for other, precision in ((encoder, "int4"), (tiny_encoder(), "int8")):
        with pytest.raises(ConfigError, match="precision"):
            other.save(tmp_path / "none", precision=precision)


def test_the_table_as_one_array(tmp_path: Path) -> None:
    encoder = static("bert", normalize=False)
    encoder.model.network.token_weights.values.data[5] = 0.5
    export_table(encoder, tmp_path)
    table = np.load(tmp_path / "embeddings.npy")
    engine = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ids = engine.encode(TEXTS[0], add_special_tokens=False).ids
    np.testing.assert_allclose(table[ids].mean(0), encoder.encode(TEXTS[:1])[0], atol=1e-6)
    with pytest.raises(ConfigError, match="only the rows of a static encoder"):
        export_table(tiny_encoder(), tmp_path / "other")


def test_gradients_are_those_of_the_sums_written_out() -> None:
    rows = [[5, 7, 5, 5], [], [7, 9], [5]]
    wanted = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for plainly in (False, True):
        network = static().model.network
        table, weights = network.tokens.weight, network.token_weights.values
        weights.data[7] = 0.5
        if plainly:
            weighted = table * weights[:, None]
            means = torch.stack([weighted[r].mean(0) if r else weighted[0] * 0 for r in rows])
        else:
            means = network.mean_states(rows)
        (means * wanted).sum().backward()
        found.append((means.detach(), table.grad.to_dense(), weights.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
