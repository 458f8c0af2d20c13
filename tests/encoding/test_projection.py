"""Axes of vectors: what turning and whitening promise, and where a projection is kept."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoding import tuning
from encoding.models import tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.matryoshka import neighbours_kept
from idiolect.encoding.projection import Projection
from idiolect.encoding.tune import tune
from idiolect.encoding.tune_on_text import tune_on_text
from idiolect.errors import CheckpointError, ConfigError, InputError, VerificationError
from idiolect.training.progress import report_to
from idiolect.training.training_config import TrainingConfig
from training import models

MANY = [" ".join(random.Random(n).choices("abcdefghijklmnop", k=3 + n % 9)) for n in range(60)]


def test_turning_changes_no_product_and_puts_most_first() -> None:
    encoder = tiny_encoder(normalize=False)
    before = encoder.encode(MANY)
    encoder.project(MANY)
    after = encoder.encode(MANY)
    np.testing.assert_allclose(after @ after.T, before @ before.T, rtol=1e-3, atol=1e-3)
    strength = (after.astype(np.float64) ** 2).sum(0)
    assert (np.diff(strength) <= 1e-6).all()
    kept = [neighbours_kept(vectors, [4], k=5)[4] for vectors in (before, after)]
    assert kept[1] > kept[0]


def test_whitened_vectors_have_no_mean_and_no_large_direction() -> None:
    encoder = tiny_encoder(normalize=False)
    encoder.project(MANY, whiten=True)
    vectors = encoder.encode(MANY).astype(np.float64)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-4)
    covariance = vectors.T @ vectors / len(vectors)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)
    assert np.diag(covariance)[0] == pytest.approx(1, abs=0.05)
    assert np.diag(covariance).max() < 1.001


def test_a_direction_without_variance_is_not_blown_up() -> None:
    random = np.random.default_rng(0)
    flat = random.normal(size=(50, 8)).astype(np.float32) * np.array([1.0] * 7 + [1e-9])
    mapped = Projection.fit(flat.astype(np.float32), whiten=True)(torch.eye(8))
    assert float(mapped.abs().max()) < 20


def test_an_empty_text_stays_zero_and_training_sees_the_projection() -> None:
    encoder = tiny_encoder(normalize=True)
    encoder.project(MANY, whiten=True)
    vectors = encoder.encode(["", *MANY[:3]])
    assert not vectors[0].any()
    embedded = encoder.embed(["", *MANY[:3]])
    assert embedded.requires_grad
    np.testing.assert_allclose(embedded.detach().numpy(), vectors, atol=1e-5)


def test_projections_are_chained() -> None:
    encoder = tiny_encoder(normalize=False)
    encoder.project(MANY[:30])
    turned = encoder.encode(MANY)
    encoder.project(MANY, whiten=True)
    again = Projection.fit(turned, whiten=True)(torch.from_numpy(turned)).numpy()
    found = encoder.encode(MANY)
    np.testing.assert_allclose(np.abs(found[:, :4]), np.abs(again[:, :4]), atol=1e-2)


def test_fitting_reports_its_progress() -> None:
    # It reads thousands of texts at full length: without a line it looked like a hang.
    seen: list[tuple[int, int, str]] = []
    with report_to(lambda *state: seen.append(state)):
        tiny_encoder().project(["the water", "a garden", "the garden and the water"])
    assert seen[0] == (0, 3, "fitting the projection")
    assert seen[-1][:2] == (3, 3)


def test_nothing_to_fit_is_reported() -> None:
    with pytest.raises(InputError, match="all texts are empty"):
        tiny_encoder().project(["", " "])


def test_vectors_that_are_not_finite_are_told_before_axes_are_found() -> None:
    encoder = tiny_encoder()
    with torch.no_grad():
        encoder.model.network.tokens.weight[4] = torch.nan  # the letter a
    with pytest.raises(VerificationError, match="vector of text 1 "):
        encoder.project(["b c", "a b", "c d"])


def test_texts_that_are_all_the_same_still_have_finite_vectors() -> None:
    encoder = tiny_encoder(normalize=True)
    encoder.project(["a b c"] * 5, whiten=True)
    assert np.isfinite(encoder.encode(MANY)).all()
    assert np.linalg.norm(encoder.encode(["d e f"])) == pytest.approx(1, abs=1e-5)


def test_an_encoder_that_reads_less_keeps_all_else() -> None:
    encoder = tiny_encoder(
        "llama",
        pooling="weighted",
        normalize=False,
        bidirectional=True,
        prompts={"query": "a "},
        default_prompt_name="query",
        trained_dimensions=(4,),
    )
    encoder.project(MANY)
    same = encoder.with_changes()
    assert same.fingerprint == encoder.fingerprint
    assert same.trained_dimensions == (4,)
    short = encoder.with_changes(max_length=6)
    assert (short.max_length, encoder.max_length) == (6, 64)
    np.testing.assert_array_equal(short.encode(["b", "c"]), encoder.encode(["b", "c"]))


def test_the_layout_keeps_it_for_both(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers", reason="it is not installed")
    ours = tiny_encoder("llama", normalize=True)
    plain = ours.fingerprint
    ours.project(MANY, whiten=True)
    assert ours.fingerprint != plain
    ours.save(tmp_path / "ours")
    again = Encoder.load(tmp_path / "ours")
    assert again.fingerprint == ours.fingerprint
    theirs = library.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(theirs.encode(MANY), ours.encode(MANY), atol=1e-4)
    theirs.save(str(tmp_path / "theirs"))
    back = Encoder.load(tmp_path / "theirs")
    np.testing.assert_allclose(back.encode(MANY), ours.encode(MANY), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"activation_function": "torch.nn.modules.activation.Tanh"}, ConfigError, "Tanh"),
        ({"use_residual": True}, ConfigError, "residual"),
        (None, CheckpointError, "damaged"),
    ],
)
def test_a_step_that_is_not_linear_or_damaged_is_refused(
    tmp_path: Path, change: Any, error: Any, words: str
) -> None:
    encoder = tiny_encoder()
    encoder.project(MANY)
    encoder.save(tmp_path)
    dense = tmp_path / "2_Dense"
    if change is None:
        (dense / "model.safetensors").write_bytes(b"cut")
    else:
        settings = json.loads((dense / "config.json").read_text())
        (dense / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(error, match=words):
        Encoder.load(tmp_path)


def test_tuning_for_short_vectors_turns_them_once(tmp_path: Path) -> None:
    plan = TrainingConfig(batch_size=8, learning_rate=1e-3)
    encoder = tuning.encoder(0.0)
    tune(encoder, tuning.pairs(), output_dir=tmp_path, dimensions=[4], steps=2, config=plan)
    fitted = Projection.load(tmp_path / "projection.safetensors")
    assert encoder.projection is not None
    assert torch.equal(encoder.projection.weight, fitted.weight)
    # A run that is gone on with takes the axes that are there, and fits none.
    other = Projection(fitted.weight.flip(0), fitted.bias)
    other.save(tmp_path / "projection.safetensors")
    again = tuning.encoder(0.0)
    tune(again, tuning.pairs(), output_dir=tmp_path, dimensions=[4], steps=2, config=plan)
    assert again.projection is not None
    assert torch.equal(again.projection.weight, other.weight)


def test_tuning_for_the_whole_width_leaves_vectors_as_they_are(tmp_path: Path) -> None:
    encoder = tuning.encoder(0.0)
    tune(
        encoder,
        tuning.pairs(),
        output_dir=tmp_path,
        steps=1,
        config=TrainingConfig(batch_size=8, learning_rate=1e-3),
    )
    assert encoder.projection is None


def test_learning_from_text_alone_whitens_for_what_is_saved(tmp_path: Path) -> None:
    encoder = tuning.encoder(0.1)
    plan = TrainingConfig(batch_size=8, max_length=16, learning_rate=1e-3)
    known = models.texts(20)
    tune_on_text(encoder, known, output_dir=tmp_path, whiten=True, steps=2, config=plan)
    saved = Encoder.load(tmp_path / "model")
    assert saved.projection is not None
    np.testing.assert_allclose(saved.encode(known), encoder.encode(known), atol=1e-5)
