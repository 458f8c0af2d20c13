"""Models loaded in few bits: GGUF blocks as they are, NF4 and int8; what is saved and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch

from idiolect.errors import ConfigError
from idiolect.models.gguf.gguf_blocks import GGUFMatrix
from idiolect.models.language_model import LanguageModel
from idiolect.models.quantized_weights import quantize_loaded
from idiolect.nn.quantized_matrix import quantized_matrices, whole
from models.gguf_file import tiny, write_model

Storage = gguf.GGMLQuantizationType
IDS = torch.arange(18).view(2, 9)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "BF16"])
def test_blocks_decode_as_the_package_does(kind: str) -> None:
    values = torch.randn(6, 64).numpy()
    packed = gguf.quantize(values, Storage[kind])
    ours = GGUFMatrix(torch.from_numpy(packed), 64, kind)
    expected = torch.from_numpy(gguf.dequantize(packed, Storage[kind]))
    assert torch.equal(whole(ours), expected)
    assert torch.equal(ours[torch.tensor([4, 0])], expected[[4, 0]])


def test_k_quants_decode_as_the_package_does() -> None:
    """The package writes no K-quants, so their bytes are random, with small scales."""
    block, size = gguf.GGML_QUANT_SIZES[Storage.Q4_K]
    packed = numpy.random.default_rng(0).integers(0, 256, (3, 2 * size), dtype=numpy.uint8)
    packed.reshape(3, 2, size)[..., [1, 3]] = 44
    ours = GGUFMatrix(torch.from_numpy(packed), 2 * block, "Q4_K")
    assert torch.equal(whole(ours), torch.from_numpy(gguf.dequantize(packed, Storage.Q4_K)))


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("llama", {"tie_word_embeddings": True}),  # permuted query and key rows
        ("llama", {}),  # an untied head, kept as well
        ("gpt2", {}),  # fused, and transposed as published
        ("gpt_neox", {}),  # fused head by head
        ("phi3", {}),  # parts of different sizes
    ],
)
def test_kept_blocks_give_the_same_logits(
    model_type: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    path = write_model(tmp_path / "m.gguf", tiny(model_type, **fields), storage=Storage.Q8_0)
    exact, kept = LanguageModel.load(path), LanguageModel.load(path, quantization="keep")
    formats = {matrix.format for matrix in quantized_matrices(kept.network).values()}
    assert formats == {"Q8_0"}
    assert not [n for n, p in kept.network.named_parameters() if p.dim() == 2 and ".layers." in n]
    with torch.no_grad():
        expected = exact.network(IDS).logits
        torch.testing.assert_close(kept.network(IDS).logits, expected, rtol=1e-4, atol=1e-4)
    kept.save(tmp_path / "saved")
    again = LanguageModel.load(tmp_path / "saved").network.state_dict()
    for name, tensor in exact.network.state_dict().items():
        assert torch.equal(again[name], tensor), name


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_layers_are_quantised_and_rows_are_not(quantization: Any, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", tiny("llama"), storage=Storage.Q8_0)
    LanguageModel.load(path).save(tmp_path / "directory")
    for source in (path, tmp_path / "directory"):
        exact = LanguageModel.load(source)
        model = LanguageModel.load(source, quantization=quantization)
        for name, parameter in exact.network.named_parameters():
            if ".layers." in name and parameter.dim() == 2:
                matrix = model.network.get_submodule(name)
                assert matrix.format == quantization
                error = (whole(matrix) - parameter).abs().max()  # type: ignore[arg-type]
                assert 0 < error < 0.2 * parameter.abs().max()
        for name, rows in model.network.vocabulary_rows().items():
            assert torch.equal(whole(rows), exact.network.get_parameter(name))  # type: ignore[arg-type]
        quantize_loaded(exact.network, quantization)
        with torch.no_grad():
            torch.testing.assert_close(model.network(IDS).logits, exact.network(IDS).logits)


def test_what_cannot_be_kept_or_is_unknown_is_refused(tmp_path: Path) -> None:
    LanguageModel.load(write_model(tmp_path / "m.gguf", tiny("llama"))).save(tmp_path / "d")
    for source in (tmp_path / "m.gguf", tmp_path / "d"):
        with pytest.raises(ConfigError, match=r"holds no quantised blocks to keep.*nf4 or int8"):
            LanguageModel.load(source, quantization="keep")
    with pytest.raises(ConfigError, match=r"unknown quantization 'int4' \(one of nf4, int8, keep"):
        LanguageModel.load(tmp_path / "d", quantization="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is in full precision and has no quantised blocks"):
        quantize_loaded(LanguageModel.load(tmp_path / "d").network, "keep")


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_a_saved_copy_of_a_gguf_file_is_kept_in_its_blocks(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "m.gguf", tiny("llama"), storage=Storage[kind])
    exact = LanguageModel.load(path)
    width = exact.network.config.hidden_size
    exact.network.add_rows(
        64, {name: torch.zeros(3, width) for name in exact.network.vocabulary_rows()}
    )
    exact.save(tmp_path / "saved")
    kept = LanguageModel.load(tmp_path / "saved", quantization="keep")
    matrices = quantized_matrices(kept.network)
    tables = {name: one for name, one in matrices.items() if ".layers." not in name}
    assert set(tables) == {"tokens.weight.original", "heads.language.weight.original"}
    layers = {name: one for name, one in matrices.items() if ".layers." in name}
    assert len(layers) == 14
    assert {one.format for one in layers.values()} == {kind}
    for name, one in layers.items():
        assert torch.equal(whole(one), exact.network.get_parameter(name)), name
    with torch.no_grad():
        expected = exact.network(IDS).logits
        torch.testing.assert_close(kept.network(IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert not caplog.records
    with torch.no_grad():
        exact.network.get_parameter("decoder.layers.0.feed_forward.up.weight").add_(0.01)
    exact.save(tmp_path / "changed")
    LanguageModel.load(tmp_path / "changed", quantization="keep")
    assert "1 of 14 matrices are not in blocks" in caplog.text
