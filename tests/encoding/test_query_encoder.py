"""Query encoders: the vectors of an encoder without torch, kept in the user's cache."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from encoding.models import tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.query_encoder import query_export
from idiolect.encoding.query_encoder.query_encoder import SETTINGS, cached, folder_of
from idiolect.encoding.query_encoder.query_export import keep_query_encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.search.index import Index

TEXTS = ["a b c", "b", "c a " * 30, ""]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "idiolect" / "query_encoders"


def changed(encoder: Encoder) -> Encoder:
    """Give biases and norms values that matter; fresh ones are zero and one."""
    with torch.no_grad():
        for number, weight in enumerate(encoder.model.network.parameters()):
            torch.manual_seed(number)
            weight.add_(torch.randn_like(weight) * 0.3)
    return encoder


def kinds() -> list[Encoder]:
    prompts = {"prompts": {"query": "a a "}, "max_length": 20}
    static = changed(Encoder(tiny_encoder("llama").model, layers=0))
    projected = changed(tiny_encoder())
    letters = random.Random(0)
    projected.project([" ".join(letters.choices("abcdefgh", k=9)) for _ in range(80)], whiten=True)
    return [
        changed(tiny_encoder(**prompts)),
        changed(tiny_encoder(pooling="first", normalize=False)),
        projected,
        static,
    ]


def test_vectors_are_those_of_the_encoder() -> None:
    for encoder in kinds():
        assert keep_query_encoder(encoder)
        found = cached(encoder.fingerprint)
        assert found is not None
        assert found.fingerprint == encoder.fingerprint
        for options in ({}, {"prompt_name": "query"}, {"dimensions": 3}):
            exact = encoder.encode(TEXTS, counts=EncodingCounts(), **options)
            ours = found.encode(TEXTS, counts=EncodingCounts(), **options)
            assert np.abs(exact[0]).max() > 0.01
            np.testing.assert_allclose(ours, exact, atol=1e-5 * np.abs(exact).max())


def test_networks_of_other_kinds_are_left_to_torch(cache: Path) -> None:
    for encoder in (tiny_encoder("llama"), tiny_encoder(pooling="weighted")):
        assert not keep_query_encoder(encoder)
        assert cached(encoder.fingerprint) is None


def test_an_encoder_with_other_vectors_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = changed(tiny_encoder())
    monkeypatch.setitem(query_export.ACTIVATIONS, "gelu", lambda x: np.maximum(x, 0))
    assert not keep_query_encoder(encoder)
    assert not folder_of(encoder.fingerprint).exists()


def test_a_damaged_entry_is_ignored(cache: Path) -> None:
    encoder = tiny_encoder()
    assert keep_query_encoder(encoder)
    folder = folder_of(encoder.fingerprint)
    settings = json.loads((folder / SETTINGS).read_text())
    for content in ("{", json.dumps(settings | {"version": 0}), json.dumps({"version": 1})):
        (folder / SETTINGS).write_text(content)
        assert cached(encoder.fingerprint) is None


def test_few_encoders_are_kept(cache: Path) -> None:
    encoders = [changed(tiny_encoder(max_length=length)) for length in range(10, 15)]
    for encoder in encoders:
        assert keep_query_encoder(encoder)
    kept = [cached(encoder.fingerprint) is not None for encoder in encoders]
    assert kept == [False, True, True, True, True]


def test_a_cache_that_cannot_be_written_to_costs_only_time(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    assert not keep_query_encoder(tiny_encoder())


def test_a_search_uses_the_kept_encoder(tmp_path: Path) -> None:
    """It finds the same as with torch, which it does not import."""
    encoder = changed(tiny_encoder())
    items = [("1", "a b c"), ("2", "d e f"), ("3", "g a h")]
    with Index.build(tmp_path / "index", encoder, items) as index:
        (exact,) = index.search("a b", 1, mode="dense")
        index.keep_query_encoder()
    program = f"""
import sys
from idiolect.search.index import Index
with Index.open({str(tmp_path / "index")!r}) as index:
    (hit,) = index.search("a b", 1, mode="dense")
print(hit.id, round(hit.score, 4), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().split() == [exact.id, str(round(exact.score, 4)), "False"]


def test_loading_and_encoding_do_not_import_the_compiler(tmp_path: Path) -> None:
    """It takes longer than loading a small encoder."""
    tiny_encoder().save(tmp_path / "encoder")
    program = f"""
import sys
from idiolect.encoding.encoder import Encoder
Encoder.load({str(tmp_path / "encoder")!r}).encode(["a b"])
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"False"]


def test_torch_is_not_imported() -> None:
    encoder = tiny_encoder()
    assert keep_query_encoder(encoder)
    program = f"""
import sys
from idiolect.encoding.query_encoder.query_encoder import cached
assert cached({encoder.fingerprint!r}).encode(["a b"]).shape == (1, {encoder.dimensions})
print("torch" in sys.modules, "numba" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"False"]
