"""GGUF files that we write: read back, equal to the model, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idiolect.errors import ConfigError
from idiolect.models.gguf.gguf_export import export_gguf
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers import bpe
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.terms import Term, Terms

SETTINGS = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_theta": 5000.0,
    "tie_word_embeddings": False,
}
TEXTS = ["the lamp glows red and the desk lamp is warm", "a kelvin is a unit of temperature"] * 20


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    tokenizer = bpe.train(TEXTS, 300)
    return LanguageModel.new(SETTINGS | {"vocab_size": len(tokenizer)}, tokenizer, seed=3)


@pytest.mark.parametrize(("precision", "error"), [("f32", 0.0), ("f16", 1e-3), ("q8_0", 2e-2)])
def test_the_file_is_the_model(
    model: LanguageModel, tmp_path: Path, precision: str, error: float
) -> None:
    path = tmp_path / "model.gguf"
    export_gguf(model, path, precision=precision)  # type: ignore[arg-type]
    again = LanguageModel.load(path)
    ids = torch.tensor([model.tokenizer.encode(TEXTS[0], add_special_tokens=False)])
    assert again.tokenizer.encode(TEXTS[1]) == model.tokenizer.encode(TEXTS[1])
    with torch.inference_mode():
        ours, theirs = (one.network(ids).logits for one in (model, again))
    assert (ours - theirs).abs().max() <= error * ours.abs().max()


def test_new_tokens_are_written_if_a_runtime_finds_them(
    model: LanguageModel, tmp_path: Path
) -> None:
    terms = [Term("temperature", (" temperature",))]
    grown = extend(model, Terms(terms, method="merges"))
    export_gguf(grown, tmp_path / "grown.gguf")
    again = LanguageModel.load(tmp_path / "grown.gguf").tokenizer
    assert again.encode("a temperature") == grown.tokenizer.encode("a temperature")
    phrase = Term("desk lamp", (" desk lamp",))
    for others in (terms, [phrase]):
        exact = extend(model, Terms(others, method="exact"))
        with pytest.raises(ConfigError, match="would not find the new tokens"):
            export_gguf(exact, tmp_path / "exact.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["grown.gguf"]


def test_what_the_format_cannot_express_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    scaled = SETTINGS | {
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "vocab_size": len(model.tokenizer),
    }
    with pytest.raises(ConfigError, match="scaled rotary positions"):
        export_gguf(LanguageModel.new(scaled, model.tokenizer), tmp_path / "x.gguf")
    recurrent = LanguageModel.new(
        {"model_type": "lstm", "hidden_size": 8, "num_layers": 1}, model.tokenizer
    )
    with pytest.raises(ConfigError, match="cannot be exported to GGUF"):
        export_gguf(recurrent, tmp_path / "x.gguf")
    with pytest.raises(ConfigError, match="unknown precision"):
        export_gguf(model, tmp_path / "x.gguf", precision="q4")  # type: ignore[arg-type]
