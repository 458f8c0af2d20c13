"""Published character LSTMs: converted, they predict as they did, and their vocabulary grows."""

from __future__ import annotations

import gzip
import json
import re
import runpy
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ROOT
from idiolect.encoding.encoder import Encoder
from idiolect.errors import InputError
from idiolect.generate.strategies import sample
from idiolect.models.language_model import LanguageModel
from idiolect.vocabulary.extend.extend import extend

_SHARED = ROOT.parent / "shared"
_MODELS = _SHARED / "models" / "ml5-char-rnn"
_CONVERT = runpy.run_path(str(ROOT / "examples" / "convert_ml5.py"))


def _write(folder: Path, layers: int = 1) -> dict[str, np.ndarray]:
    """Write a model of five characters in the layout of ml5."""
    random = np.random.default_rng(0)
    shapes = {"embedding": (5, 3), "rnnlm/softmax_w": (3, 5), "rnnlm/softmax_b": (5,)}
    for number in range(layers):
        cell = f"rnnlm/multi_rnn_cell/cell_{number}/basic_lstm_cell"
        shapes |= {f"{cell}/kernel": (6, 12), f"{cell}/bias": (12,)}
    tensors = {name: random.normal(size=shape).astype("<f4") for name, shape in shapes.items()}
    manifest = {}
    for name, tensor in tensors.items():
        file = name.replace("/", "_")
        (folder / file).write_bytes(tensor.tobytes())
        manifest[name] = {"filename": file, "shape": list(tensor.shape)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "vocab.json").write_text(json.dumps({"a": 0, " ": 1, "é": 2, "\n": 3, "—": 4}))
    return tensors


def test_a_converted_model_computes_as_tensorflow_did(tmp_path: Path) -> None:
    tensors = _write(tmp_path)
    model = _CONVERT["convert"](tmp_path)
    ids = model.tokenizer.encode("a é—\n", add_special_tokens=False)
    assert ids == [0, 1, 2, 4, 3]
    assert model.tokenizer.decode(ids) == "a é—\n"
    kernel = tensors["rnnlm/multi_rnn_cell/cell_0/basic_lstm_cell/kernel"]
    bias = tensors["rnnlm/multi_rnn_cell/cell_0/basic_lstm_cell/bias"]
    h = c = np.zeros(3, np.float32)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    expected = []
    for id_ in ids:
        i, j, f, o = np.split(np.concatenate([tensors["embedding"][id_], h]) @ kernel + bias, 4)
        c = c * sigmoid(f + 1) + sigmoid(i) * np.tanh(j)
        h = np.tanh(c) * sigmoid(o)
        expected.append(h @ tensors["rnnlm/softmax_w"] + tensors["rnnlm/softmax_b"])
    with torch.no_grad():
        logits = model.network(torch.tensor([ids])).logits[0]
    np.testing.assert_allclose(logits[:, :5].numpy(), np.stack(expected), atol=1e-5)
    assert float(logits[:, 5:].max()) < -9000


def test_damaged_files_are_named(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "embedding").write_bytes(b"1234")
    with pytest.raises(InputError, match="embedding has 4 bytes"):
        _CONVERT["convert"](tmp_path)
    with pytest.raises(InputError, match=r"cannot read .*manifest\.json"):
        _CONVERT["convert"](tmp_path / "none")


def _nats(model: LanguageModel, text: str) -> float:
    ids = torch.tensor([model.tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        logits = model.network(ids).logits
    return float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]))


@pytest.mark.slow
@pytest.mark.skipif(not _MODELS.exists(), reason="the published models are not here")
def test_published_models_predict_generate_grow_and_encode(tmp_path: Path) -> None:
    shakespeare = _CONVERT["convert"](_MODELS / "shakespeare")
    with gzip.open(_SHARED / "data" / "tinyshakespeare" / "shakespeare.txt.gz", "rt") as file:
        text = file.read()
    # The published vocabulary lacks u and U: 1.74 nats without them, 1.29 with them.
    assert _nats(shakespeare, re.sub("[uU]", "", text[:4000])) == pytest.approx(1.74, abs=0.005)
    assert _nats(shakespeare, text[:4000]) == pytest.approx(1.29, abs=0.005)

    bronte = _CONVERT["convert"](_MODELS / "charlotte_bronte")
    path = _SHARED / "data" / "eltec-eng" / "level1" / "ENG18570_Bronte.xml.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        page = file.read()
    body = re.sub(r"\s+", " ", page[page.find("<body") :])
    body = re.sub("<[^>]+>", "", body.replace("</p>", "\n\n")).replace("&amp;", "&")
    for curly, plain in zip("“”‘’—", ['"', '"', "'", "'", "--"], strict=True):
        body = body.replace(curly, plain)
    lines = "\n\n".join(textwrap.fill(p.strip(), 72) for p in body.split("\n\n"))
    assert _nats(bronte, lines[4000:8000]) == pytest.approx(1.29, abs=0.03)

    larger = extend(shakespeare, ["gentleman", "sovereign"])
    added = [token.id for token in larger.extension.added]
    assert set(larger.tokenizer.encode("a gentleman")) & set(added)
    old = shakespeare.network.tokens.weight
    assert torch.equal(larger.network.tokens.weight.original, old)
    larger.save(tmp_path / "larger")
    again = LanguageModel.load(tmp_path / "larger")
    start = torch.tensor([again.tokenizer.encode("ROMEO:\n", add_special_tokens=False)])
    said = sample(again.network, start, max_new_tokens=60, seeds=[1])[0].tolist()
    assert len(again.tokenizer.decode(said)) >= 60
    vectors = Encoder(again).encode(["To be, or not to be", "a gentleman"])
    assert vectors.shape == (2, 128)
