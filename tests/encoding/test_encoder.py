"""`Encoder`: order, cutting, empty texts, kinds of text, both ways, echo, and what is refused."""

from __future__ import annotations

import logging
import random

import numpy as np
import pytest
import torch

from encoding.models import tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts, by_length
from idiolect.errors import ConfigError, InputError, VerificationError

TEXTS = ["a b c", "d", "e f g h i j", "b a", "p o n m l k j i h g f e", "a", "c d e"]


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1)


def test_order_is_kept_whatever_the_batches() -> None:
    encoder = tiny_encoder()
    single = np.concatenate([encoder.encode([text]) for text in TEXTS])
    for tokens in (1, 7, 20, 10_000):
        np.testing.assert_allclose(
            encoder.encode(TEXTS, tokens_per_batch=tokens), single, atol=1e-6
        )
    assert single.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(single, axis=1), 1, atol=1e-6)


def test_ids_of_few_texts_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the vectors are the same, in the same order, with the empty text in its place."""
    encoder, texts = tiny_encoder(), [*TEXTS, " ", "b c"]
    whole, read = encoder.encode(texts, counts=EncodingCounts()), []
    monkeypatch.setattr("idiolect.encoding.encoder._BLOCK", 3)
    usual = encoder.reader.read
    monkeypatch.setattr(
        encoder.reader, "read", lambda some, *rest: read.append(len(some)) or usual(some, *rest)
    )
    counts = EncodingCounts()
    np.testing.assert_allclose(encoder.encode(texts, counts=counts), whole, atol=1e-6)
    assert read == [3, 3, 3]
    assert (counts.texts, counts.empty) == (9, 1)


def test_batches_hold_every_text_once_and_stay_within_the_budget() -> None:
    chance = random.Random(0)
    rows = [[0] * chance.randrange(30) for _ in range(200)]
    batches = list(by_length(rows, 64))
    assert sorted(i for batch in batches for i in batch) == [i for i, row in enumerate(rows) if row]
    assert all(max(len(rows[i]) for i in batch) * len(batch) <= 64 for batch in batches)
    assert len(batches) <= 1.3 * sum(map(len, rows)) / 64


def test_truncation_is_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    encoder = tiny_encoder(max_length=6)
    counts = EncodingCounts()
    with caplog.at_level(logging.WARNING):
        cut = encoder.encode(["a b c d e f g", "a b c d", "a"], counts=counts)
    assert counts == EncodingCounts(texts=3, tokens=6 + 6 + 3, truncated=1, lost=3, empty=0)
    assert not caplog.records
    np.testing.assert_allclose(cut[0], cut[1], atol=1e-6)
    with caplog.at_level(logging.WARNING):
        encoder.encode(["a b c d e f g", "a"])
    assert "1 of 2 texts are longer than 6 tokens" in caplog.text


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_empty_texts_are_zero_and_counted(
    model_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = tiny_encoder(model_type, template=model_type == "bert", prompts={"query": "a a "})
    counts = EncodingCounts()
    vectors = encoder.encode(["", "a", " \n"], prompt_name="query", counts=counts)
    assert counts.empty == 2
    assert not vectors[[0, 2]].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1)
    assert not encoder.encode(["", ""]).any()
    assert "2 of 2 texts are empty" in caplog.text
    assert encoder.encode([]).shape == (0, 16)
    assert not encoder.embed(["", "a"])[0].any()


def test_an_instruction_stands_before_the_text() -> None:
    encoder = tiny_encoder(
        prompts={"query": "p o ", "passage": "n "}, default_prompt_name="passage"
    )
    plain = tiny_encoder()
    for kind, whole in (("query", "p o a b"), ("document", "n a b"), (None, "n a b")):
        np.testing.assert_allclose(
            encoder.encode(["a b"], prompt_name=kind), plain.encode([whole]), atol=1e-6
        )
    np.testing.assert_allclose(plain.encode(["a b"], prompt_name="query"), plain.encode(["a b"]))
    with pytest.raises(InputError, match=r"'title'.*document, passage, query"):
        encoder.encode(["a"], prompt_name="title")


def test_causal_models_are_bidirectional_only_on_request() -> None:
    causal = tiny_encoder("llama", pooling="first", template=False)
    both = Encoder(causal.model, "first", bidirectional=True)
    texts = ["a b c", "a c b", "a p"]
    blind, seeing = causal.encode(texts), both.encode(texts)
    assert _cosines(blind[:1], blind[1:]).min() > 1 - 1e-6
    assert _cosines(seeing[:1], seeing[1:]).max() < 0.999
    # The encoders share a network but not the direction of attention.
    np.testing.assert_array_equal(causal.encode(texts), blind)
    with pytest.raises(ConfigError, match="already bidirectional"):
        tiny_encoder(bidirectional=True)


def test_echo_is_the_mean_of_the_second_copy() -> None:
    encoder = tiny_encoder("llama", pooling="echo", normalize=False, max_length=10)
    ids = encoder.model.tokenizer.encode("a b c", add_special_tokens=False)
    row = torch.tensor([[2, *ids, *ids, 3]])
    with torch.no_grad():
        hidden = encoder.model.network(row, return_logits=False).hidden_states
    expected = hidden[0, 4:7].mean(0).numpy()
    np.testing.assert_allclose(encoder.encode(["a b c", "d"])[0], expected, atol=1e-6)
    counts = EncodingCounts()
    encoder.encode(["a b c d e f"], counts=counts)
    assert (counts.lost, counts.tokens) == (2, 10)
    # The first of them has seen the last, though the model is causal.
    first = encoder.encode(["a b c", "a b d"])
    assert np.abs(first[0] - first[1]).max() > 1e-3


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_embed_is_encode_with_gradients(model_type: str) -> None:
    encoder = tiny_encoder(model_type)
    expected = encoder.encode(TEXTS)
    vectors = encoder.embed(TEXTS)
    np.testing.assert_allclose(vectors.detach().numpy(), expected, atol=1e-6)
    vectors[:, 0].sum().backward()
    gradients = [p.grad for n, p in encoder.model.network.named_parameters() if ".layers.0." in n]
    assert gradients
    assert all(g is not None and g.abs().sum() > 0 for g in gradients if g is None or g.dim() > 1)


def test_encoding_leaves_the_mode_unchanged() -> None:
    encoder = tiny_encoder()
    encoder.model.network.train()
    encoder.encode(["a"])
    assert encoder.model.network.training
    encoder.model.network.eval()
    encoder.encode(["a"])
    assert not encoder.model.network.training


def test_fewer_dimensions_are_normalized_again_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = tiny_encoder(trained_dimensions=[8])
    texts = [" ".join(text) for text in ("abc", "bcd", "cde", "def", "efg", "fgh") * 4]
    full, short = encoder.encode(texts), encoder.encode(texts, dimensions=8)
    assert not caplog.records
    expected = full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)
    for _ in range(2):
        encoder.encode(texts, dimensions=4)
    assert len(caplog.records) == 1
    assert "not trained for 4 of its 16 dimensions" in caplog.text
    assert "% with 8" in caplog.text
    for wrong in (0, 17):
        with pytest.raises(InputError, match=f"{wrong} dimensions; the model has 16"):
            encoder.encode(texts, dimensions=wrong)


def test_vectors_that_are_not_finite_are_an_error() -> None:
    encoder = tiny_encoder()
    encoder.model.network.tokens.weight.data[4 + WORD_P] = float("nan")
    encoder.encode(["a", "b"])
    with pytest.raises(VerificationError, match="text 2 is not finite"):
        encoder.encode(["a", "b", "c p"])


WORD_P = 15
"""Of the letters, p is the last."""


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "expected a list of texts"),
        (["a", 3], "text 1 is an int"),
        (["\ud800"], "text 0 holds an unpaired surrogate"),
    ],
)
def test_what_is_no_text_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_encoder().encode(texts)


def test_a_length_beyond_the_positions_is_refused() -> None:
    assert tiny_encoder().max_length == 64
    assert tiny_encoder("llama", max_length=100).max_length == 100
    with pytest.raises(ConfigError, match="max_length is 65, and the model has 64"):
        tiny_encoder(max_length=65)


def test_the_fingerprint_tells_encoders_apart() -> None:
    encoder = tiny_encoder()
    prints = {
        encoder.fingerprint,
        tiny_encoder(pooling="first").fingerprint,
        tiny_encoder(normalize=False).fingerprint,
        tiny_encoder(prompts={"query": "a "}).fingerprint,
        tiny_encoder(max_length=8).fingerprint,
        tiny_encoder("llama").fingerprint,
    }
    assert len(prints) == 6
    assert tiny_encoder().fingerprint == encoder.fingerprint
    with torch.no_grad():
        next(encoder.model.network.encoder.parameters()).view(-1)[0] += 1
    assert encoder.fingerprint not in prints
