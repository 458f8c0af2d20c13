"""What the loop chooses by the device, and that layers are fit to be compiled."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from idiolect.nn.attention import Visibility
from idiolect.nn.layer import Layer
from idiolect.nn.packing import positions_and_documents
from idiolect.training.loop import _capability
from idiolect.training.seeds import derive_seed
from training import models


def test_a_cpu_trains_in_float32() -> None:
    context, compiled = _capability(torch.device("cpu"))
    assert isinstance(context, nullcontext)
    assert not compiled


@pytest.mark.parametrize(
    ("native", "version", "wanted"),
    [(True, (9, 0), True), (False, (7, 5), True), (False, (6, 1), False)],
)
def test_a_gpu_by_what_it_can(
    monkeypatch: pytest.MonkeyPatch, native: bool, version: tuple[int, int], wanted: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: version)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    # The context itself would look for a GPU.
    monkeypatch.setattr(torch, "autocast", lambda device, dtype: (device, dtype))
    context, compiled = _capability(torch.device("cuda"))
    assert (context == ("cuda", torch.bfloat16)) == native
    assert compiled == wanted


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # raised by the compiler
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_layers_compile_in_one_piece(model_type: str) -> None:
    """As on a GPU: a grid with several documents a row. The result is that of eager mode."""
    network = models.model(model_type).network
    assert network.decoder is not None
    positions, documents = positions_and_documents(
        torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    )
    ids = torch.randint(4, 40, (2, 8), generator=torch.Generator().manual_seed(0))

    def read() -> torch.Tensor:
        visibility = Visibility(
            causal=True,
            query_positions=positions,
            key_positions=positions,
            query_documents=documents,
            key_documents=documents,
        )
        hidden: torch.Tensor = network.decoder(network.tokens(ids), visibility, positions)
        return hidden

    eager = read()
    for module in network.modules():
        if isinstance(module, Layer):
            module.compile(dynamic=False, fullgraph=True, backend="aot_eager")
    compiled = read()
    compiled.sum().backward()
    torch.testing.assert_close(compiled[documents > 0], eager[documents > 0])


def test_seeds_use_every_number() -> None:
    def draw(*numbers: int) -> float:
        return float(torch.rand((), generator=torch.Generator().manual_seed(derive_seed(*numbers))))

    assert draw(1, 2) == draw(1, 2)
    assert len({draw(a, b) for a in range(5) for b in range(5)}) == 25
