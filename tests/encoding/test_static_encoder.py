"""Encoders without layers, and of the first layers only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from encoding.models import WORDS, tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.text_parts import crop
from idiolect.encoding.pairs import Pair
from idiolect.encoding.static_encoder import fold_projection, should_whiten
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.encoding.tune import tune, tune_on_text, tuning_config
from idiolect.errors import ConfigError, InputError
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
    encoder.project(TEXTS[:3])
    encoder.save(tmp_path / "projected")
    theirs = SentenceTransformer(str(tmp_path / "projected"), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS[:2]), encoder.encode(TEXTS[:2]), atol=1e-5)
    again = Encoder.load(tmp_path / "projected")
    np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_folding_a_projection_keeps_vectors() -> None:
    encoder = static()
    encoder.project(TEXTS[:3], whiten=True)
    before = encoder.encode(TEXTS)
    fold_projection(encoder)
    np.testing.assert_allclose(encoder.encode(TEXTS), before, atol=1e-5)
    with pytest.raises(ConfigError, match="nothing to fold"):
        fold_projection(encoder)


def test_new_tokens_do_no_harm_at_the_start() -> None:
    base = LanguageModel.load(BASE)
    texts = ["the eigenvalue of a matrix", "Cholesky decomposition", "a plain text"]
    plain = Encoder(LanguageModel.load(BASE), layers=0)
    grown = Encoder(extend(base, ["eigenvalue", "Cholesky"]), layers=0)
    assert grown.model.tokenizer.encode(texts[0]) != plain.model.tokenizer.encode(texts[0])
    np.testing.assert_allclose(grown.encode(texts), plain.encode(texts), atol=1e-5)
    plain.project(texts, whiten=True)
    grown.projection = plain.projection
    fold_projection(plain)
    fold_projection(grown)
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
