"""What the loop chooses by the device, and that layers are fit to be compiled."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from idiolect.nn.attention import Visibility
from idiolect.nn.layer import Layer
from idiolect.nn.network import Network
from idiolect.nn.packing import positions_and_documents
from idiolect.training.checkpoint import RunFolder
from idiolect.training.data.batch import Batch
from idiolect.training.data.packed_documents import PackedDocuments, PackedRows
from idiolect.training.data.token_file import TokenFile
from idiolect.training.loop import Trainer, _capability
from idiolect.training.objectives.causal import Causal
from idiolect.training.objectives.objective import Objective, RowwiseObjective
from idiolect.training.optim import choose_parameters
from idiolect.training.seeds import derive_seed
from idiolect.training.training_config import TrainingConfig
from training import models


def test_a_cpu_trains_in_float32() -> None:
    context, compiled = _capability(torch.device("cpu"))
    assert isinstance(context, nullcontext)
    assert not compiled


@pytest.mark.parametrize(
    ("native", "version", "wanted"),
    [(True, (9, 0), True), (False, (7, 5), True), (False, (6, 1), False)],
)
def test_a_gpu_uses_what_it_supports(
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
@pytest.mark.parametrize("model_type", [pytest.param("llama", marks=pytest.mark.slow), "gpt2"])
def test_layers_compile_in_one_piece(model_type: str) -> None:
    """As on a GPU, with several documents per row. The result equals that of eager mode."""
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


class _Slope(RowwiseObjective):
    """A loss that is linear in the weights, so that its gradient is known: `steepness` for each."""

    def __init__(self, steepness: float) -> None:
        self.steepness = steepness

    def prepare(self, rows: PackedRows) -> Batch:
        return Batch(
            input_ids=rows.input_ids, attention_mask=rows.document_ids, labels=rows.input_ids
        )

    def loss(self, network: Network, batch: Batch) -> torch.Tensor:
        total = sum(p.sum() for p in network.parameters() if p.requires_grad)
        return self.steepness * batch.count * total


class _Draws(Causal):
    """Records the first random number of each step."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.drawn: list[float] = []

    def loss(self, network: Network, batch: Batch) -> torch.Tensor:
        self.drawn.append(float(torch.rand(())))
        return super().loss(network, batch)


def _trainer(folder: Path, objective: Objective, **values: Any) -> Trainer:
    model = models.model()
    folder.mkdir(exist_ok=True)
    tokens = TokenFile.write(folder / "tokens", models.texts(), model.tokenizer)
    source = PackedDocuments(tokens, Causal.template(model.tokenizer), length=32, rows=4)
    config = TrainingConfig(**{"max_length": 32, "batch_size": 4, "save_steps": 100} | values)
    choose_parameters(model.network, "all")
    return Trainer(
        model.network, objective, source, config, steps=3, folder=RunFolder(folder / "run")
    )


def test_gradients_are_clipped_by_their_norm(tmp_path: Path, monkeypatch: Any) -> None:
    """The optimizer gets clipped gradients; the metrics hold the norm before clipping."""
    norms = []

    def note(self: torch.optim.AdamW, *args: Any) -> None:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([g.flatten() for g in grads if g is not None]).norm()))

    trainer = _trainer(tmp_path, _Slope(0.5), max_grad_norm=0.25, learning_rate=1e-6)
    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    trainer.run()
    assert norms == pytest.approx([0.25] * 3, rel=1e-4)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    count = sum(p.numel() for p in trainer.training.values())
    assert json.loads(lines[0])["gradient_norm"] == pytest.approx(0.5 * count**0.5, rel=1e-4)


def test_each_step_draws_other_random_numbers(tmp_path: Path) -> None:
    """Dropout differs between steps, and a resumed run repeats that of each step."""
    objective = _Draws(models.model().network)
    _trainer(tmp_path / "a", objective).run()
    assert len(set(objective.drawn)) == 3
    again = _Draws(models.model().network)
    _trainer(tmp_path / "b", again).run()
    assert again.drawn == objective.drawn
    other = _Draws(models.model().network)
    _trainer(tmp_path / "c", other, seed=1).run()
    assert not set(other.drawn) & set(objective.drawn)
