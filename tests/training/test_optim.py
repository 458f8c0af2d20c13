"""Which weights train, which decay, and that nothing is computed for the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idiolect.nn.lora import LoraConfig, add_lora
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.objectives.causal import Causal
from idiolect.training.optim import choose_parameters, make_optimizer
from training import models


@pytest.mark.parametrize("train", ["rows", "rows+lora", "body", "all"])
def test_only_what_trains_gets_a_gradient(train: Any) -> None:
    network = models.model(tie_word_embeddings=False).network
    if train == "rows+lora":
        add_lora(network, LoraConfig())
    chosen = choose_parameters(network, train)
    objective = Causal(network)
    ids = torch.randint(4, 45, (2, 16), generator=torch.Generator().manual_seed(0))
    objective.loss(
        network, objective.prepare(PackedRows(ids, torch.ones_like(ids), 0, ()))
    ).backward()
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None}
    assert with_gradient == set(chosen)
    kinds = {
        "rows": {"added"},
        "rows+lora": {"added", "lora_a", "lora_b"},
        "body": {"weight"},
        "all": {"added", "weight"},
    }
    assert {name.rpartition(".")[2] for name in chosen} == kinds[train]
    assert not any(name.endswith("original") for name in chosen)


def test_decay_is_for_linear_maps_alone() -> None:
    network = models.model("bert").network
    add_lora(network, LoraConfig(target_modules=("query",)))
    network.requires_grad_(True)
    optimizer = make_optimizer(network, weight_decay=0.1)
    names = {id(p): name for name, p in network.named_parameters()}
    decayed = {
        names[id(p)] for g in optimizer.param_groups if g["weight_decay"] > 0 for p in g["params"]
    }
    rest = {
        names[id(p)] for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]
    }
    assert decayed | rest == set(names.values())
    assert all(".attention." in n or ".feed_forward." in n or ".dense." in n for n in decayed)
    assert not any("norm" in n or n.endswith("bias") for n in decayed)
    assert any("lora_a" in n for n in decayed)
    for name in ("tokens.weight.original", "tokens.weight.added", "encoder.table.weight"):
        assert name in rest
