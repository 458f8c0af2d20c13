"""Static encoders tuned with `train="rows"`: original rows stay, and a projection learns."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from encoding.models import WORDS, tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.export.table_export import export_table
from idiolect.encoding.mining import Mining
from idiolect.encoding.pairs import Pair
from idiolect.encoding.static_encoder import should_whiten
from idiolect.encoding.tune import tune
from idiolect.errors import InputError
from idiolect.models.language_model import LanguageModel
from idiolect.vocabulary.extend.extend import extend

TERMS = ["eigenvalue", "Cholesky"]
TEXTS = ["the eigenvalue of a matrix", "Cholesky decomposition", "a plain text", ""]
PAIRS = [
    Pair(f"{word} of a matrix {number}", f"{other} {number} the decomposition of {word}")
    for number in range(6)
    for word, other in [("eigenvalue", "a"), ("Cholesky", "the"), ("vector", "some")]
]
CONFIG = {"batch_size": 18, "save_steps": 2}


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return LanguageModel.load("idiolect-base")


@pytest.fixture(scope="module")
def grown(base: LanguageModel) -> LanguageModel:
    return extend(LanguageModel.load("idiolect-base"), TERMS)


@pytest.fixture(scope="module")
def run(grown: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Path]:
    folder = tmp_path_factory.mktemp("run")
    mining = Mining(count=1, pool=2)
    options = {"train": "rows", "steps": 5, "config": CONFIG, "mining": mining}
    return tune(Encoder(grown, layers=0), PAIRS, output_dir=folder, **options), folder


def test_original_rows_are_the_base_s_bit_for_bit(
    base: LanguageModel, grown: LanguageModel, run: tuple[Encoder, Path]
) -> None:
    encoder, folder = run
    count = len(base.tokenizer)
    before = Encoder(grown, layers=0).model.network
    original = base.network.tokens.weight[:count]
    stored = load_file(folder / "model" / "model.safetensors")
    for table in (encoder.model.network.tokens.weight, stored["embeddings"]):
        assert torch.equal(table[:count], original)
        assert len(table) == len(grown.tokenizer) > count
        assert not torch.equal(table[count:], before.tokens.weight[count:]), "new rows learn"
    assert not torch.allclose(stored["weights"], torch.ones(1)), "the tokens' weights learn"
    fitted = Encoder(grown, layers=0)
    fitted = fitted.fit_projection([pair.document for pair in PAIRS], whiten=True)
    assert encoder.projection is not None
    directions = [torch.nn.functional.normalize(p.weight) for p in (encoder.projection, fitted)]
    assert not torch.allclose(*directions, atol=1e-3), "the projection learns"


def test_it_is_loaded_everywhere_with_equal_vectors(
    run: tuple[Encoder, Path], tmp_path: Path
) -> None:
    encoder, folder = run
    vectors = encoder.encode(TEXTS)
    again = Encoder.load(folder / "model")
    assert again.fingerprint == encoder.fingerprint
    assert not should_whiten(again)
    np.testing.assert_array_equal(again.encode(TEXTS), vectors)
    theirs = SentenceTransformer(str(folder / "model"), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS[:3]), vectors[:3], atol=1e-5)
    export_table(encoder, tmp_path)
    table = np.load(tmp_path / "embeddings.npy")
    for text, vector in zip(TEXTS[:3], vectors, strict=False):
        mean = table[encoder.model.tokenizer.encode(text)].mean(0)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), vector, atol=1e-5)


def test_a_resumed_run_ends_alike(
    grown: LanguageModel, run: tuple[Encoder, Path], tmp_path: Path
) -> None:
    options = {"train": "rows", "output_dir": tmp_path, "config": CONFIG}
    options |= {"mining": Mining(count=1, pool=2), "steps": 5}
    stopped = Encoder(grown, layers=0)
    (tmp_path / "model").write_text("in the way of the finished model")
    with pytest.raises(InputError, match="is a file"):
        tune(stopped, PAIRS, **options)
    (tmp_path / "model").unlink()
    shutil.rmtree(tmp_path / "checkpoint-00000005")
    assert (tmp_path / "checkpoint-00000004").exists()
    again = tune(Encoder(grown, layers=0), PAIRS, **options)
    assert again.fingerprint == run[0].fingerprint


def test_new_tokens_change_no_vector_at_the_start(
    base: LanguageModel, grown: LanguageModel
) -> None:
    plain, extended = Encoder(base, layers=0), Encoder(grown, layers=0)
    for encoder in (plain, extended):
        encoder.projection = encoder.fit_projection(TEXTS[:3], whiten=True)
        assert not encoder.projection.bias.any()
    np.testing.assert_allclose(extended.encode(TEXTS), plain.encode(TEXTS), atol=1e-4)


def test_without_new_tokens_and_without_pairs(tmp_path: Path) -> None:
    texts = [" ".join(WORDS[4 + (i * k) % 16] for k in range(1, 30)) for i in range(1, 16)]
    model = tiny_encoder("llama").model
    encoder = Encoder(model, layers=0)
    options = {"train": "rows", "steps": 3, "config": {"batch_size": 8}, "corpus": texts}
    tune(encoder, output_dir=tmp_path / "a", dimensions=(), **options)
    assert torch.equal(encoder.model.network.tokens.weight, model.network.tokens.weight)
    first = encoder.encode(texts)
    tune(encoder, output_dir=tmp_path / "b", **options)
    assert not np.allclose(encoder.encode(texts), first, atol=1e-4), "it learns on"
    assert torch.equal(encoder.model.network.tokens.weight, model.network.tokens.weight)
