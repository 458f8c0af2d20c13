"""GGUF files that we write: read back, run by llama.cpp, and what is refused."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.program import idiolect_program
from idiolect.errors import ConfigError
from idiolect.models.gguf.gguf_export import export_gguf
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers import bpe
from idiolect.text.tokenizers.gguf import gguf_vocabulary
from idiolect.text.tokenizers.gguf.gguf_header import read_gguf_header
from idiolect.text.tokenizers.tokenizer import Tokenizer
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


_GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
_GEMMA = {
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 32,
    "tie_word_embeddings": True,
}
OTHERS = {
    "llama": SETTINGS,
    "gpt2": _GPT2,
    "qwen2": SETTINGS | {"model_type": "qwen2"},
    "qwen3": SETTINGS | {"model_type": "qwen3", "head_dim": 32},
    "gpt_neox": SETTINGS | {"model_type": "gpt_neox", "rope_theta": 10_000.0},
    "phi3": SETTINGS | {"model_type": "phi3", "pad_token_id": 0, "partial_rotary_factor": 0.5},
    "gemma2": SETTINGS | _GEMMA | {"model_type": "gemma2"},
    "gemma3": SETTINGS | _GEMMA | {"model_type": "gemma3_text"},
    "olmo2": SETTINGS | {"model_type": "olmo2"},
    "smollm3": SETTINGS | {"model_type": "smollm3"},
}


def _model(settings: dict[str, Any]) -> LanguageModel:
    """Return a model whose norms and biases are random as well."""
    tokenizer = bpe.train(TEXTS, 300)
    made = LanguageModel.new(settings | {"vocab_size": len(tokenizer)}, tokenizer, seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


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


def test_fields_that_llama_cpp_needs_are_written(tmp_path: Path) -> None:
    """Where it has no default, or another one than the configuration's."""
    found = {}
    for kind in ("qwen3", "gpt_neox", "phi3"):
        export_gguf(_model(OTHERS[kind]), tmp_path / kind)
        found |= read_gguf_header(tmp_path / kind).metadata
    assert found["qwen3.attention.key_length"] == found["qwen3.attention.value_length"] == 32
    assert found["gptneox.use_parallel_residual"] is True
    assert found["gptneox.rope.dimension_count"] == 4
    assert found["phi3.rope.dimension_count"] == 8
    assert "phi3" not in found["general.name"]  # it would look for the tokens of Phi-3


def test_the_default_of_several_chat_templates_is_written(
    model: LanguageModel, tmp_path: Path
) -> None:
    several = [
        {"name": "tool_use", "template": "{{ t }}"},
        {"name": "default", "template": "{{ m }}"},
    ]
    tokenizer = Tokenizer.from_engine(model.tokenizer.engine, {"chat_template": several})
    export_gguf(model.with_changes(tokenizer=tokenizer), tmp_path / "model.gguf")
    metadata = read_gguf_header(tmp_path / "model.gguf").metadata
    assert metadata["tokenizer.chat_template"] == "{{ m }}"


def test_whole_numbers_of_the_configuration_have_the_types_of_llama_cpp(tmp_path: Path) -> None:
    """It refuses a file whose `rope.freq_base` is an integer, as SmolLM2's and Qwen3's are."""
    softcaps = {"attn_logit_softcapping": 50, "final_logit_softcapping": 30}
    for kind, whole in (("gemma2", softcaps), ("gemma3", {"rope_local_base_freq": 10_000})):
        path = tmp_path / kind
        export_gguf(_model(OTHERS[kind] | {"rope_theta": 100_000} | whole), path)
        found = read_gguf_header(path).metadata
        real = ("freq_base", "freq_base_swa", "softcapping", "epsilon")
        values = {key: value for key, value in found.items() if key.endswith(real)}
        assert len(values) >= 3
        assert all(isinstance(value, float) for value in values.values()), values


def test_rows_that_pad_the_embedding_are_no_tokens(model: LanguageModel, tmp_path: Path) -> None:
    size = len(model.tokenizer)
    padded = LanguageModel.new(SETTINGS | {"vocab_size": size + 20}, model.tokenizer)
    export_gguf(padded, tmp_path / "model.gguf")
    again = LanguageModel.load(tmp_path / "model.gguf")
    assert again.network.config.vocab_size == size + 20
    assert again.tokenizer.engine.get_vocab() == model.tokenizer.engine.get_vocab()


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_rows_that_pad_a_sentencepiece_vocabulary_are_no_tokens(kind: str) -> None:
    """As in GGUF files of Phi-3."""
    tokens = ["<unk>", "<s>", "</s>", "▁a", "b", "▁ab", *"[PAD9]", "[PAD12]", "[PAD13]"]
    fields = {
        "model": kind,
        "tokens": tokens,
        "token_type": [2, 3, 3, *[1] * 9, 5, 5],
        "scores": [0.0] * 3 + [-float(i) for i in range(9)] + [-1000.0] * 2,
        "unknown_token_id": 0,
    }
    engine, _ = gguf_vocabulary.read({f"tokenizer.ggml.{k}": v for k, v in fields.items()})
    assert engine.get_vocab_size() == 12
    assert max(engine.encode("a [PAD12]", add_special_tokens=False).ids) < 12


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_llama_cpp_reads_the_ids_and_continues_alike(tmp_path: Path, kind: str) -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    model = _model(OTHERS[kind])
    export_gguf(model, tmp_path / "model.gguf", precision="f32")
    options = xllamacpp.CommonParams()
    options.model.path = str(tmp_path / "model.gguf")
    options.n_ctx, options.n_parallel, options.warmup = 64, 1, False
    options.cpuparams.n_threads = 1
    server = xllamacpp.Server(options)

    def ask(path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    for text in TEXTS[:2]:
        written = model.tokenizer.encode(text, add_special_tokens=False)
        assert ask("/tokenize", content=text, add_special=False)["tokens"] == written
    prompt = written[:4]
    continued = list(prompt)
    with torch.inference_mode():
        for _ in range(12):
            scores = model.network(torch.tensor([continued])).logits
            assert scores is not None
            continued.append(int(scores[0, -1].argmax()))
    asked = ask("/completion", prompt=prompt, n_predict=12, temperature=0, return_tokens=True)
    assert asked["tokens"] == continued[4:]


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


def test_a_file_is_not_replaced_by_its_own_export(model: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    export_gguf(model, path, precision="f32")
    before = path.read_bytes()
    done = idiolect_program("export", "gguf", path, "-o", path)
    assert done.returncode == 2
    assert "the model itself" in done.stderr
    assert path.read_bytes() == before
