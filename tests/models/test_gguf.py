"""GGUF files: networks and tokenizers equal those of `transformers`; damage is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idiolect.errors import CheckpointError, ConfigError, IdiolectError, InputError
from idiolect.models.gguf.gguf_weights import GGUFWeights, gguf_settings
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.gguf.gguf_header import read_gguf_header
from idiolect.text.tokenizers.tokenizer import Tokenizer
from models.gguf_file import tiny, write_model

Storage = gguf.GGMLQuantizationType


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("gpt2", {}),
        ("gpt_neox", {}),
        ("gpt_neox", {"use_parallel_residual": False, "rotary_pct": 0.5}),
        ("starcoder2", {"sliding_window": 4096}),
        ("phi3", {}),
        ("phi3", {"sliding_window": 4, "partial_rotary_factor": 0.5}),
        ("olmo2", {}),
        ("smollm3", {"num_hidden_layers": 5}),
        ("gemma2", {"sliding_window": 4, "query_pre_attn_scalar": 16}),
        ("gemma3_text", {"sliding_window": 4, "query_pre_attn_scalar": 16}),
    ],
)
def test_logits_equal_transformers(model_type: str, fields: dict[str, Any], tmp_path: Path) -> None:
    reference = tiny(model_type, **fields)
    path = write_model(tmp_path / "model.gguf", reference)
    model = LanguageModel.load(path)
    ids = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(ids).logits
        assert torch.allclose(model.network(ids).logits, expected, atol=1e-5)
    model.save(tmp_path / "saved")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert torch.allclose(again(ids).logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("modernbert", {"local_attention": 4, "num_hidden_layers": 4}),
        (
            "gemma3_text",
            {"sliding_window": 4, "query_pre_attn_scalar": 16, "num_hidden_layers": 7}
            | {"use_bidirectional_attention": True},
        ),
    ],
)
def test_states_equal_transformers(model_type: str, fields: dict[str, Any], tmp_path: Path) -> None:
    reference = tiny(model_type, **fields)
    model = LanguageModel.load(write_model(tmp_path / "model.gguf", reference))
    ids = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(ids).last_hidden_state
        assert torch.allclose(model.network(ids).hidden_states, expected, atol=1e-4)


def test_the_largest_gemma_scales_its_scores_otherwise(tmp_path: Path) -> None:
    reference = tiny("gemma2", num_hidden_layers=46, head_dim=32, query_pre_attn_scalar=16)
    settings = gguf_settings(read_gguf_header(write_model(tmp_path / "m.gguf", reference)))
    assert settings["query_pre_attn_scalar"] == 64 // 4


def test_bert_equals_transformers(tmp_path: Path) -> None:
    reference = tiny("bert")
    model = read_gguf_header(write_model(tmp_path / "model.gguf", reference))
    weights, published = GGUFWeights(model), reference.state_dict()
    assert gguf_settings(model)["model_type"] == "bert"
    found = {name.removeprefix("bert."): name for name in weights.names}
    assert len(found) > 30
    for bare, name in found.items():
        assert torch.equal(weights[name], published[bare])


@pytest.mark.parametrize(
    "storage",
    ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"],
)
def test_each_storage_type_equals_the_loader_of_transformers(storage: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", tiny("llama"), storage=Storage[storage])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).state_dict()
    weights = GGUFWeights.open(path)
    assert len(weights.names) == 21
    for name in weights.names:
        assert torch.equal(weights[name], theirs[name])


@pytest.mark.parametrize("storage", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_quantisations_are_read(storage: str, tmp_path: Path) -> None:
    kind = Storage[storage]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    reference = tiny("llama", hidden_size=block, head_dim=64)
    path = write_model(tmp_path / "model.gguf", reference)
    header = read_gguf_header(path)
    entry = header.tensors["token_embd.weight"]
    stored = numpy.random.default_rng(0).integers(0, 60, (entry.shape[0], size), dtype=numpy.uint8)
    data = bytearray(path.read_bytes())
    data[entry.offset : entry.offset + stored.size] = stored.tobytes()
    name = data.index(b"token_embd.weight") + len("token_embd.weight")
    struct.pack_into("<I", data, name + 4 + 16, kind)
    path.write_bytes(data)
    rows = GGUFWeights.open(path).read("token_embd.weight")
    assert torch.equal(rows, torch.from_numpy(gguf.dequantize(stored, kind)))


def test_rotary_factors_become_llama3_scaling(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    reference = tiny("llama", rope_parameters=scaling)
    plain = 500000.0 ** -(torch.arange(0, 16, 2) / 16)
    factors = (plain / reference.model.rotary_emb.inv_freq).numpy().astype(numpy.float32)
    assert factors.max() == 8
    path = write_model(tmp_path / "m.gguf", reference, tensors={"rope_freqs.weight": factors})
    model = LanguageModel.load(path)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(model.network(ids).logits, reference(ids).logits, atol=1e-5)
    path = write_model(tmp_path / "n.gguf", reference, tensors={"rope_freqs.weight": factors * 1.5})
    with pytest.raises(ConfigError, match="unknown factors"):
        LanguageModel.load(path)


def test_the_tokenizer_is_loaded_and_saved(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", tiny("llama"))
    tokenizer = Tokenizer.load(path)
    assert tokenizer.encode("the the") == [22, 31, 32]
    assert tokenizer.eos_token_id == 2
    model = LanguageModel.load(path)
    model.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs("the cat the")["input_ids"] == tokenizer.encode("the cat the")
    assert theirs.chat_template == "{{ messages }}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_model(tmp_path_factory.mktemp("gguf") / "m.gguf", tiny("llama")).read_bytes()


def test_a_file_that_is_cut_anywhere_is_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    for end in [0, 3, 4, 8, 20, 30, 100, 500, 1000, len(whole) // 2, len(whole) - 40]:
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            LanguageModel.load(path)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(4, 2500), junk=st.binary(min_size=8, max_size=8))
def test_a_damaged_header_is_read_or_refused_in_one_line(
    whole: bytes, tmp_path: Path, at: int, junk: bytes
) -> None:
    """Any 8 bytes of the header, replaced by any others, are read or refused; never a crash."""
    damaged = bytearray(whole)
    damaged[at : at + 8] = junk
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    error = _refusal(path)
    assert error is None or "\n" not in str(error)


def _refusal(path: Path) -> IdiolectError | None:
    """Load a file; any other exception than ours fails the test."""
    try:
        LanguageModel.load(path)
    except IdiolectError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [(4, struct.pack("<I", 1), "version 1"), (8, b"\xff" * 8, "ends before entry")],
)
def test_version_and_counts_are_checked(
    at: int, value: bytes, message: str, whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(whole[:at] + value + whole[at + len(value) :])
    with pytest.raises(CheckpointError, match=message):
        read_gguf_header(path)


def test_unknown_architectures_types_and_files_are_named(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(whole.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", 1))
    with pytest.raises(ConfigError, match="'mamba' are not supported"):
        LanguageModel.load(path)
    data = bytearray(whole)
    name = data.index(b"token_embd.weight") + len("token_embd.weight")
    struct.pack_into("<I", data, name + 4 + 16, Storage.I8)
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="I8"):
        LanguageModel.load(path)
    (tmp_path / "model.bin").write_bytes(whole)
    with pytest.raises(InputError, match="nor a GGUF file"):
        LanguageModel.load(tmp_path / "model.bin")
