"""Layers computed again in the backward pass: the same gradients, fewer kept activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from idiolect.nn.gradient_checkpointing import recomputed
from idiolect.nn.network import Network
from parity.reference import make


def gradients(net: Network, *, recompute: bool) -> tuple[dict[str, Tensor], int]:
    """The gradients of one step, and how often the layers ran."""
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    hooks = [block.feed_forward.register_forward_pre_hook(count) for block in net.blocks]  # type: ignore[union-attr,operator]
    net.zero_grad()
    torch.manual_seed(4)
    ids = torch.arange(14).view(2, 7)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with recomputed(net.blocks if recompute else ()):
        net(ids, mask, return_logits=False).hidden_states[mask.bool()].square().sum().backward()
    for hook in hooks:
        hook.remove()
    return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}, runs


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("llama", "LlamaForCausalLM"),
        ("gpt2", "GPT2LMHeadModel"),  # dropout draws the same numbers again
        ("t5", "T5ForConditionalGeneration"),  # layers share a trained bias of the scores
    ],
)
def test_gradients_are_the_same(tmp_path: Path, model_type: str, architecture: str) -> None:
    net = make(tmp_path, model_type, architecture).network.train()
    kept, once = gradients(net, recompute=False)
    again, twice = gradients(net, recompute=True)
    assert twice == 2 * once == 2 * len(net.blocks)
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        assert torch.equal(again[name], gradient), name
    assert not any("forward" in vars(block) for block in net.blocks), "layers are as before"


def test_without_gradients_nothing_is_recomputed(tmp_path: Path) -> None:
    net = make(tmp_path, "llama", "LlamaForCausalLM").network
    ids = torch.arange(6)[None]
    with torch.no_grad(), recomputed(net.blocks):
        assert torch.equal(net(ids).logits, net(ids).logits)
