"""Encoding in bf16 or int8: near the exact vectors, recorded, and without a change to the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoding import tuning
from encoding.models import minilm, tiny_encoder
from idiolect.encoding import int8 as module
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.int8 import Int8Linear
from idiolect.encoding.tune import tune
from idiolect.encoding.vectors import DiskVectors
from idiolect.errors import ConfigError, InputError

TEXTS = ["a b c", "d e f g h", "p", "o n m", "c c c c c c"]


def test_bf16_is_near_and_the_same_encoder() -> None:
    exact = tiny_encoder("llama")
    faster = exact.with_changes(precision="bf16")
    vectors, near = exact.encode(TEXTS), faster.encode(TEXTS)
    assert not np.array_equal(vectors, near)
    assert (vectors * near).sum(1).min() > 0.99
    assert faster.fingerprint == exact.fingerprint
    assert faster.with_changes(normalize=False).precision == "bf16"
    # Training has a precision of its own.
    np.testing.assert_array_equal(
        faster.embed(TEXTS).detach().numpy(), exact.embed(TEXTS).detach().numpy()
    )


def test_int8_leaves_the_model_unchanged() -> None:
    exact = tiny_encoder("llama")
    vectors = exact.encode(TEXTS)
    rounded = exact.with_changes(precision="int8")
    assert any(isinstance(one, Int8Linear) for one in rounded.model.network.modules())
    assert (vectors * rounded.encode(TEXTS)).sum(1).min() > 0.98
    assert rounded.fingerprint != exact.fingerprint
    np.testing.assert_array_equal(exact.encode(TEXTS), vectors)
    with pytest.raises(InputError, match="quantized"):
        rounded.save("nowhere")


def test_other_weights_have_another_fingerprint_in_int8() -> None:
    one, other = tiny_encoder("llama"), tiny_encoder("llama")
    other.model.network.blocks[0].feed_forward.up.weight.data[0] *= 2
    assert one.with_changes(precision="int8").with_changes(max_length=9).fingerprint != (
        other.with_changes(precision="int8").with_changes(max_length=9).fingerprint
    )


@pytest.mark.parametrize("chosen", ["fp32", "bf16", "int8"])
def test_auto_is_what_the_measurement_finds(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "choose_precision", lambda network, asked, int8: chosen)
    assert tiny_encoder("llama").with_changes(precision="auto").precision == chosen


def test_a_file_holds_vectors_of_one_precision(tmp_path: Path) -> None:
    path, exact = tmp_path / "v.npy", tiny_encoder("llama")
    assert DiskVectors.precision_of(path) is None
    faster = exact.with_changes(precision="bf16")
    assert faster.encode_to(path, TEXTS).record["precision"] == "bf16"
    assert DiskVectors.precision_of(path) == "bf16"
    with pytest.raises(InputError, match="precision bf16, not fp32"):
        exact.encode_to(path, TEXTS)


def test_unknown_precisions_and_training_in_int8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown precision 'half'"):
        tiny_encoder(precision="half")
    with pytest.raises(ConfigError, match="cannot be trained"):
        tune(tiny_encoder(precision="int8"), tuning.pairs(), output_dir=tmp_path, steps=1)


def test_minilm_in_bf16_is_near() -> None:
    exact = Encoder.load(minilm())
    texts = ["The eigenvalues of a Hermitian matrix are real.", "XR-2000B toner", "word " * 90]
    near = exact.with_changes(precision="bf16").encode(texts)
    assert (exact.encode(texts) * near).sum(1).min() > 0.99
