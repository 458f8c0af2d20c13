"""Adapters: they begin as nothing, train alone, and fold into the weights."""

from __future__ import annotations

import copy

import pytest
import torch

from idiolect.errors import ConfigError
from idiolect.nn.lora import LoraConfig, add_lora, lora_layers, merge_lora
from nn.test_attention import network

IDS = torch.arange(12).view(2, 6)


def scatter(net: torch.nn.Module) -> None:
    """Give every B something to do."""
    torch.manual_seed(3)
    for layer in lora_layers(net).values():
        torch.nn.init.normal_(layer.lora_b, std=0.1)


def test_a_new_adapter_changes_nothing() -> None:
    net = network()
    before = net(IDS).logits
    names = add_lora(net, LoraConfig(target_modules=("query", "up")))
    assert len(names) == 4
    assert torch.equal(net(IDS).logits, before)


def test_the_change_is_the_papers() -> None:
    net = network()
    plain = copy.deepcopy(net)
    add_lora(net, LoraConfig(r=3, lora_alpha=6.0))
    scatter(net)
    for name, layer in lora_layers(net).items():
        weight = plain.get_parameter(f"{name}.weight")
        weight.data = weight.data + 6.0 / 3 * layer.lora_b.data @ layer.lora_a.data
    torch.testing.assert_close(net(IDS).logits, plain(IDS).logits)


def test_only_adapters_of_adapted_layers_train() -> None:
    net = network()
    names = add_lora(net, LoraConfig())
    net(IDS).logits.sum().backward()
    for name in names:
        assert net.get_parameter(f"{name}.weight").grad is None
        assert net.get_parameter(f"{name}.lora_b").grad is not None


def test_merging_keeps_the_outputs_and_the_names() -> None:
    net = network()
    names = set(net.state_dict())
    add_lora(net, LoraConfig(target_modules=("query", "key", "value", "output", "up", "down")))
    scatter(net)
    before = net(IDS).logits
    merge_lora(net)
    torch.testing.assert_close(net(IDS).logits, before)
    assert set(net.state_dict()) == names
    assert not lora_layers(net)


def test_dropout_reaches_the_adapter_in_training_only() -> None:
    net = network()
    add_lora(net, LoraConfig(lora_dropout=0.5))
    scatter(net)
    assert torch.equal(net(IDS).hidden_states, net(IDS).hidden_states)
    net.train()
    assert not torch.equal(net(IDS).hidden_states, net(IDS).hidden_states)


def test_bad_adapters_are_refused() -> None:
    net = network()
    with pytest.raises(ConfigError, match=r"no layer is named 'q_proj'.*query"):
        add_lora(net, LoraConfig(target_modules=("q_proj",)))
    with pytest.raises(ConfigError, match="at least 1"):
        LoraConfig(r=0)
    with pytest.raises(ConfigError, match="target_modules is empty"):
        LoraConfig(target_modules=())
    add_lora(net, LoraConfig())
    with pytest.raises(ConfigError, match="already has an adapter"):
        add_lora(net, LoraConfig())
