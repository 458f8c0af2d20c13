"""Gradients through time beside autograd and finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from idiolect.errors import ConfigError
from idiolect.nn.recurrent import (
    RecurrentConfig,
    RecurrentLayer,
    RecurrentNetwork,
    gradients_through_time,
    penalize_vanishing,
    state_gradients,
    unroll,
    vanishing_penalty,
)

_CONFIG = RecurrentConfig(
    vocab_size=9, hidden_size=5, inner_size=5, embedding_size=5, num_layers=2, cell="tanh"
)


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_norms_are_those_of_a_change_of_one_state(cell: str) -> None:
    """Finite differences: add a little to h_t of the top layer, and run on from there."""
    network = RecurrentNetwork(replace(_CONFIG, cell=cell, num_layers=1)).double()
    network.init_weights(0)
    layer, ids = network.layers[0], torch.tensor([[1, 2, 3, 4, 5]])
    weight = torch.randn(5, dtype=torch.double)
    norms = gradients_through_time(network, ids, lambda h: (h[:, -1] * weight).sum())
    xs = network.tokens(ids)
    states = unroll(cell, xs, layer.first_state(1), layer.weights)
    for t in range(5):
        changes = []
        for place in range(5):
            h = states[t][0].detach().clone()
            h[0, place] += 1e-6
            after = unroll(cell, xs[:, t + 1 :], (h, *states[t][1:]), layer.weights)
            end = after[-1][0] if after else h
            changes.append(float(((end - states[-1][0]) * weight).sum().detach()) / 1e-6)
        assert float(norms[0, t]) == pytest.approx(float(torch.tensor(changes).norm()), rel=1e-3)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("kind", ["tanh", "relu"])
def test_the_recursion_equals_autograd_and_omega_its_definition(kind: str) -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(kind, 3, 4)
    x, weight = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    states = [state[0] for state in unroll(kind, x, layer.first_state(2), layer.weights)]
    loss = (torch.stack(states, 1) * weight).sum()
    expected = torch.autograd.grad(loss, states)
    output, _ = layer(x)
    (immediate,) = torch.autograd.grad((output * weight).sum(), output, retain_graph=True)
    grads = state_gradients(layer, output.detach(), immediate)
    torch.testing.assert_close(grads, torch.stack(expected, 1))

    total = 0.0
    for text in range(2):
        for t in range(4):
            later = grads[text, t + 1]
            h = output[text, t].detach()

            def following(h: torch.Tensor, text: int = text, t: int = t) -> torch.Tensor:
                w = layer.weights
                act = torch.tanh if kind == "tanh" else torch.relu
                return act(w.U @ x[text, t + 1] + w.a + w.W @ h + w.b)

            jacobian = torch.autograd.functional.jacobian(following, h)
            total += float(((later @ jacobian).norm() / later.norm() - 1) ** 2)
    omega = vanishing_penalty(layer, output, grads)
    assert omega.item() == pytest.approx(total / 2, rel=1e-4)
    omega.backward()
    assert layer.weight_hh.grad is not None
    assert layer.weight_ih.grad is None, "only the immediate partial derivative"


def test_omega_is_zero_where_gradients_keep_their_length() -> None:
    layer = RecurrentLayer("relu", 2, 3)
    with torch.no_grad():
        layer.weight_hh.copy_(torch.eye(3))
        layer.bias_ih.fill_(1.0)
        nn.init.zeros_(layer.weight_ih)
    output, _ = layer(torch.zeros(1, 6, 2))
    grads = state_gradients(layer, output.detach(), torch.ones(1, 6, 3))
    assert vanishing_penalty(layer, output, grads).item() == pytest.approx(0)
    gated = RecurrentLayer("gru", 2, 3)
    for refused in (vanishing_penalty, state_gradients):
        with pytest.raises(ConfigError, match="gates keep gradients"):
            refused(gated, output, grads)
    with pytest.raises(ConfigError, match="gates keep gradients"):
        penalize_vanishing(gated, output, 1.0)


def test_a_backward_pass_adds_the_gradient_of_omega() -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer("tanh", 3, 4)
    x, weight = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    output, _ = layer(x)
    loss = (output * weight).sum()
    (immediate,) = torch.autograd.grad(loss, output, retain_graph=True)
    omega = vanishing_penalty(layer, output, state_gradients(layer, output, immediate))
    every = list(layer.parameters())
    expected = torch.autograd.grad(loss + 0.3 * 2 * 5 * omega, every)

    output, _ = layer(x)
    loss = (penalize_vanishing(layer, output, 0.3) * weight).sum()
    found = torch.autograd.grad(loss, every)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)

    layer.weight_hh.requires_grad_(False)
    penalize_vanishing(layer, layer(x)[0], 0.3).sum().backward()
    assert layer.weight_hh.grad is None


@pytest.mark.parametrize("change", [{"cell": "lstm"}, {"weight_dropout": 0.5}])
def test_omega_in_a_configuration_is_of_plain_networks(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="vanishing_penalty is for plain networks"):
        replace(_CONFIG, vanishing_penalty=1.0, **change)


def test_a_network_trains_with_omega_and_runs_without() -> None:
    ids = torch.randint(0, 9, (2, 6), generator=torch.Generator().manual_seed(0))
    grads = {}
    for weight in (0.0, 1.0):
        network = RecurrentNetwork(replace(_CONFIG, vanishing_penalty=weight))
        network.init_weights(0)
        network.train()
        network(ids).logits.logsumexp(-1).sum().backward()
        grads[weight] = {name: p.grad for name, p in network.named_parameters()}
        assert torch.isfinite(network.eval()(ids).logits).all()
    top = "layers.1."
    for name, grad in grads[0.0].items():
        if name.startswith(top):
            assert torch.equal(grad, grads[1.0][name]) == (not name.endswith("weight_hh"))
