"""Encoders as ONNX graphs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encoding.models import tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.export.onnx_export import export_onnx
from idiolect.errors import ConfigError, MissingDependencyError
from idiolect.models.language_model import LanguageModel


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_graph_gives_the_encoders_vectors(tmp_path: Path, family: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    encoder = tiny_encoder(family)
    encoder.project(["a b c", "b c d", "c a", "d d a"], whiten=True)
    export_onnx(encoder, tmp_path / "graph")
    session = onnxruntime.InferenceSession(tmp_path / "graph" / "model.onnx")
    texts = ["a b c", "b", "c c a b d", "d a"]
    rows = encoder.model.tokenizer.encode_batch(texts)
    ids = np.zeros((4, max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    (vectors,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(vectors, encoder.encode(texts), atol=1e-5)
    settings = json.loads((tmp_path / "graph" / "encoder.json").read_text())
    assert settings["dimensions"] == encoder.dimensions


def test_a_static_encoder_has_no_graph(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs no graph"):
        export_onnx(tiny_encoder("llama").with_changes(layers=0), tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    encoder = tiny_encoder()
    try:
        encoder.to_int8()
    except MissingDependencyError:
        pytest.skip("this build of torch has no int8 kernels")
    with pytest.raises(ConfigError, match="only weights in float32"):
        export_onnx(encoder, tmp_path / "graph")


@pytest.mark.slow
def test_a_network_that_torch_cannot_trace_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    settings = {"model_type": "lstm", "hidden_size": 16, "num_layers": 1}
    recurrent = LanguageModel.new(settings, tiny_encoder().model.tokenizer)
    with pytest.raises(ConfigError, match=r"\(lstm\) to ONNX"):
        export_onnx(Encoder(recurrent), tmp_path / "graph")
    assert not (tmp_path / "graph").exists()
