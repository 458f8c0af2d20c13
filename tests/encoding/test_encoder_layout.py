"""The layout of sentence-transformers, in both directions, with a published model and tiny ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoding.models import minilm, tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.encoder_layout import EncoderLayout
from idiolect.errors import CheckpointError, ConfigError

TEXTS = [
    "The eigenvalues of a Hermitian matrix are real.",
    "Short.",
    "XR-2000B, with HbA1c test strips (50 pieces), naïve café 日本語 ☃",
    "word " * 254,
    "word " * 255 + "beyond the end",
    "ﬁne\u00a0print [SEP] and [MASK] in a text\ttabs\nlines",
]


def _theirs(directory: Path) -> Any:
    library = pytest.importorskip("sentence_transformers", reason="it is not installed")
    return library.SentenceTransformer(str(directory), device="cpu")


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left = left / np.linalg.norm(left, axis=1, keepdims=True)
    right = right / np.linalg.norm(right, axis=1, keepdims=True)
    return (left.astype(np.float64) * right).sum(1)


def test_minilm_gives_the_vectors_of_sentence_transformers() -> None:
    ours, theirs = Encoder.load(minilm()), _theirs(minilm())
    theirs.tokenizer.split_special_tokens = True  # not set in the published directory
    assert (ours.max_length, ours.dimensions, ours.normalize) == (theirs.max_seq_length, 384, True)
    assert _cosines(ours.encode(TEXTS), theirs.encode(TEXTS)).min() >= 0.999999


def test_what_we_save_they_load(tmp_path: Path) -> None:
    ours = Encoder.load(minilm())
    ours.prompts |= {"query": "query: ", "document": "passage: "}
    ours.save(tmp_path / "saved")
    theirs = _theirs(tmp_path / "saved")
    assert theirs.max_seq_length == 256
    assert _cosines(ours.encode(TEXTS), theirs.encode(TEXTS)).min() >= 0.999999
    for kind, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        assert _cosines(ours.encode(TEXTS, prompt_name=kind), encode(TEXTS)).min() >= 0.999999
    again = Encoder.load(tmp_path / "saved")
    assert again.fingerprint == ours.fingerprint
    np.testing.assert_array_equal(again.encode(TEXTS), ours.encode(TEXTS))


def test_what_they_save_we_load(tmp_path: Path) -> None:
    theirs = _theirs(minilm())
    theirs.prompts = {"query": "find: ", "document": ""}
    theirs.default_prompt_name = "query"
    theirs.max_seq_length = 40
    theirs.tokenizer.split_special_tokens = True
    theirs.save(str(tmp_path))
    ours = Encoder.load(tmp_path)
    assert ours.max_length == 40
    assert _cosines(ours.encode(TEXTS), theirs.encode(TEXTS)).min() >= 0.999999
    documents = ours.encode(TEXTS, prompt_name="document")
    assert _cosines(documents, theirs.encode_document(TEXTS)).min() >= 0.999999


@pytest.mark.parametrize("pooling", ["mean", "first", "last", "weighted"])
@pytest.mark.parametrize("normalize", [True, False])
def test_every_pooling_they_know_goes_both_ways(
    tmp_path: Path, pooling: Any, normalize: bool
) -> None:
    texts = ["a b c", "d", "e f g h i j k l m n o p"]
    ours = tiny_encoder("llama", pooling=pooling, normalize=normalize)
    ours.save(tmp_path / "ours")
    theirs = _theirs(tmp_path / "ours")
    np.testing.assert_allclose(ours.encode(texts), theirs.encode(texts), atol=1e-5)
    theirs.save(str(tmp_path / "theirs"))
    again = Encoder.load(tmp_path / "theirs")
    assert (again.pooling, again.normalize) == (pooling, normalize)
    np.testing.assert_allclose(again.encode(texts), ours.encode(texts), atol=1e-5)


def test_two_dense_modules_are_one_map(tmp_path: Path) -> None:
    """EmbeddingGemma widens the mean and narrows it again, without activations."""
    import torch
    from sentence_transformers.models import Dense, Normalize

    texts = ["a b c", "d", "e f g h i j k l m n o p"]
    ours = tiny_encoder("gemma3_text", normalize=False)
    ours.save(tmp_path / "plain")
    theirs = _theirs(tmp_path / "plain")
    width, flat = ours.dimensions, torch.nn.Identity()
    theirs.append(Dense(width, 2 * width, bias=False, activation_function=flat))
    theirs.append(Dense(2 * width, 5, bias=True, activation_function=flat))
    theirs.append(Normalize())
    theirs.save(str(tmp_path / "theirs"))
    again = Encoder.load(tmp_path / "theirs")
    assert again.dimensions == 5
    np.testing.assert_allclose(again.encode(texts), theirs.encode(texts), atol=1e-5)
    again.save(tmp_path / "again")
    np.testing.assert_allclose(
        _theirs(tmp_path / "again").encode(texts), theirs.encode(texts), atol=1e-5
    )


@pytest.mark.parametrize("options", [{"pooling": "echo"}, {"bidirectional": True}])
def test_what_they_do_not_know_they_refuse(tmp_path: Path, options: dict[str, Any]) -> None:
    ours = tiny_encoder("llama", trained_dimensions=(8, 4), **options)
    ours.save(tmp_path)
    again = Encoder.load(tmp_path)
    assert again.trained_dimensions == (8, 4)
    np.testing.assert_array_equal(again.encode(["a b", "c"]), ours.encode(["a b", "c"]))
    with pytest.raises((ValueError, TypeError)):
        _theirs(tmp_path)


def test_a_plain_model_is_averaged_and_normalized(tmp_path: Path) -> None:
    ours = tiny_encoder(normalize=True)
    ours.model.save(tmp_path)
    np.testing.assert_allclose(Encoder.load(tmp_path).encode(["a b"]), ours.encode(["a b"]))


def test_saving_again_replaces_the_whole_layout(tmp_path: Path) -> None:
    tiny_encoder().save(tmp_path)
    assert (tmp_path / "2_Normalize").is_dir()
    tiny_encoder(pooling="first", normalize=False, max_length=9).save(tmp_path)
    layout = EncoderLayout.read(tmp_path)
    assert layout is not None
    assert (layout.pooling, layout.normalize, layout.max_length) == ("first", False, 9)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "the pooling 'max' is not supported"),
        (
            "1_Pooling/config.json",
            {
                "pooling_mode": None,
                "pooling_mode_mean_tokens": True,
                "pooling_mode_cls_token": True,
            },
            "not supported",
        ),
        ("1_Pooling/config.json", {"include_prompt": False}, "without the prompt"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
    ],
)
def test_settings_that_would_change_vectors_are_refused(
    tmp_path: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    tiny_encoder().save(tmp_path)
    _edit(tmp_path / file, **changes)
    with pytest.raises(ConfigError, match=message):
        Encoder.load(tmp_path)


def test_steps_we_do_not_compute_are_refused(tmp_path: Path) -> None:
    tiny_encoder().save(tmp_path)
    path = tmp_path / "modules.json"
    steps = json.loads(path.read_text())
    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    path.write_text(json.dumps([*steps, dense]))
    with pytest.raises(ConfigError, match="Normalize → Dense are not supported"):
        Encoder.load(tmp_path)
    path.write_text(json.dumps([steps[0], steps[1] | {"path": "../elsewhere"}]))
    with pytest.raises(CheckpointError, match="points outside"):
        Encoder.load(tmp_path)
    path.write_text("[{]")
    with pytest.raises(CheckpointError, match=r"modules\.json is damaged"):
        Encoder.load(tmp_path)


def test_the_library_of_the_oracle_is_not_needed(tmp_path: Path) -> None:
    tiny_encoder().save(tmp_path)
    code = (
        "import sys; sys.modules['sentence_transformers'] = None; "
        "sys.modules['transformers'] = None; from idiolect import Encoder; "
        f"print(Encoder.load({str(tmp_path)!r}).encode(['a']).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.stdout.strip() == "(1, 16)", done.stderr
