"""Recurrent cells and networks beside torch's, padded beside packed, with and without a cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError, InputError
from idiolect.nn.recurrent import (
    CellKind,
    RecurrentCache,
    RecurrentConfig,
    RecurrentLayer,
    RecurrentNetwork,
    unroll,
)

KINDS: tuple[CellKind, ...] = ("tanh", "relu", "lstm", "gru")
_TORCH: dict[str, Any] = {
    "tanh": lambda *a, **k: nn.RNN(*a, nonlinearity="tanh", **k),
    "relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}
_SMALL = RecurrentConfig(
    vocab_size=20, hidden_size=6, inner_size=6, embedding_size=6, num_layers=2, cell="lstm"
)
_IDS = torch.tensor([[3, 4, 5, 6, 7], [0, 0, 8, 9, 1], [2, 0, 0, 0, 0]])
_MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])


def _network(**changes: Any) -> RecurrentNetwork:
    network = RecurrentNetwork(replace(_SMALL, **changes))
    network.init_weights(0)
    return network.eval()


def _theirs(kind: str, layer: RecurrentLayer) -> nn.RNNBase:
    theirs = _TORCH[kind](layer.input_size, layer.hidden_size, batch_first=True)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    theirs.load_state_dict({f"{name}_l0": getattr(layer, name).detach() for name in names})
    return theirs


@pytest.mark.parametrize("kind", KINDS)
def test_the_equations_equal_torch_forward_and_backward(kind: CellKind) -> None:
    torch.manual_seed(1)
    layer = RecurrentLayer(kind, 5, 7)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    theirs = _theirs(kind, layer)
    x, weight = torch.randn(3, 6, 5), torch.randn(3, 6, 7)
    before = tuple(torch.randn(3, 7) for _ in layer.first_state(1))
    results = []
    for run in ("equations", "layer", "torch"):
        own = x.clone().requires_grad_()
        module = theirs if run == "torch" else layer
        module.zero_grad()
        if run == "equations":
            states = unroll(kind, own, before, layer.weights)
            output = torch.stack([state[0] for state in states], dim=1)
        elif run == "layer":
            output, _ = layer(own, before)
        else:
            given = tuple(part[None] for part in before)
            output, _ = theirs(own, given if kind == "lstm" else given[0])
        (output * weight).sum().backward()
        results.append([output, own.grad, *(p.grad.clone() for p in module.parameters())])
    for ours in results[:2]:
        for one, other in zip(ours, results[2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_padded_and_single_texts_are_equal(kind: CellKind) -> None:
    network = _network(cell=kind)
    together = network(_IDS, _MASK)
    for row, mask in enumerate(_MASK):
        alone = network(_IDS[row : row + 1, mask.bool()])
        torch.testing.assert_close(together.logits[row, mask.bool()], alone.logits[0])
        assert not together.hidden_states[row, ~mask.bool()].any()
    documents = torch.tensor([[1, 1, 2, 2, 2]])
    packed = network(_IDS[:1], documents).hidden_states
    torch.testing.assert_close(packed[:, 2:], network(_IDS[:1, 2:]).hidden_states)
    torch.testing.assert_close(packed[:, :2], network(_IDS[:1, :2]).hidden_states)


def test_gradients_of_a_packed_batch_are_those_of_its_texts() -> None:
    network = _network()
    network(_IDS, _MASK).hidden_states.square().sum().backward()
    together = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    for row, mask in enumerate(_MASK):
        network(_IDS[row : row + 1, mask.bool()]).hidden_states.square().sum().backward()
    alone = [p.grad for p in network.parameters() if p.grad is not None]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_equals_uncached_in_constant_memory(kind: CellKind) -> None:
    network, ids = _network(cell=kind), torch.randint(0, 20, (2, 9))
    whole, cache = network(ids).logits, network.new_cache()
    parts = [network(ids[:, :4], cache=cache).logits]
    size = sum(part.numel() for state in cache.states for part in state)
    parts += [network(ids[:, n : n + 1], cache=cache).logits for n in range(4, 9)]
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    assert size == sum(part.numel() for state in cache.states for part in state)
    assert cache.length == 9


def test_texts_padded_on_the_left_continue_from_their_own_states() -> None:
    network = _network()
    ids, mask = _IDS[:2], _MASK[:2]
    cache, more = network.new_cache(), torch.tensor([[3], [5]])
    network(ids, mask, cache=cache)
    longer = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
    got = network(more, longer, cache=cache).logits[1, -1]
    alone = network(torch.tensor([[8, 9, 1, 5]])).logits[0, -1]
    torch.testing.assert_close(got, alone)
    cache.select(torch.tensor([1, 1, 0]))
    assert cache.states[0][0].shape == (3, 6)


def test_a_state_of_another_batch_size_is_refused() -> None:
    network, cache = _network(), RecurrentCache()
    network(_IDS, cache=cache)
    with pytest.raises(InputError, match="the state is of 3 texts and the batch has 1"):
        network(_IDS[:1], cache=cache)
    with pytest.raises(InputError, match="the state is of 2 texts"):
        network.layers[0](torch.randn(3, 4, 6), network.layers[0].first_state(2))


def test_other_bad_input_is_refused() -> None:
    network = _network()
    with pytest.raises(InputError, match="id 20 is outside"):
        network(torch.tensor([[20]]))
    with pytest.raises(InputError, match="mask has the shape"):
        network(_IDS, _MASK[:, :3])
    with pytest.raises(InputError, match="left to right"):
        network.text_states(_IDS, bidirectional=True)
    with pytest.raises(InputError, match="several documents"):
        network(_IDS, _MASK + _MASK.cumsum(1).clamp(max=1), cache=network.new_cache())
    for changes, words in (
        ({"num_layers": 0}, "num_layers"),
        ({"hidden_size": 4}, "tied head"),
        ({"weight_dropout": 1.0}, "weight_dropout"),
        ({"cell": "qrnn"}, "one of tanh, relu, lstm, gru"),
        ({"tasks": ("token",)}, "no head"),
    ):
        with pytest.raises(ConfigError, match=words):
            replace(_SMALL, **changes)


def test_an_empty_text_has_no_states() -> None:
    network = _network()
    assert network(_IDS[:, :0]).hidden_states.shape == (3, 0, 6)
    assert not network(_IDS, torch.zeros_like(_IDS)).hidden_states.any()


def test_weight_drop_reaches_the_raw_matrix() -> None:
    """Published code lost it silently: the dropped copy trained, or nothing was dropped."""
    network = _network(weight_dropout=0.5).train()
    torch.manual_seed(0)
    one, other = (network(_IDS).hidden_states for _ in range(2))
    assert not torch.equal(one, other)
    layer = network.layers[0]
    raw = layer.weight_hh.detach().clone()
    one.square().sum().backward()
    assert layer.weight_hh.grad.abs().sum() > 0
    assert (layer.weight_hh.grad == 0).any(), "numbers that were dropped have no gradient"
    assert torch.equal(layer.weight_hh, raw)
    assert {name for name, _ in layer.named_parameters()} == {
        "weight_ih",
        "weight_hh",
        "bias_ih",
        "bias_hh",
    }
    exact = _network()
    exact.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(_IDS).logits, exact(_IDS).logits)


def test_weight_drop_equals_a_loop_with_the_same_mask() -> None:
    network = _network(weight_dropout=0.3, num_layers=1).train()
    layer = network.layers[0]
    torch.manual_seed(3)
    got = network(_IDS).hidden_states
    torch.manual_seed(3)
    mask = (torch.rand(layer.weight_hh.shape) >= 0.3) / 0.7
    weights = replace(layer.weights, W=layer.weight_hh * mask)
    states = unroll("lstm", network.tokens(_IDS), layer.first_state(3), weights)
    torch.testing.assert_close(got, torch.stack([state[0] for state in states], 1))


@pytest.mark.parametrize("mask", [None, _MASK], ids=["grid", "packed"])
def test_variational_dropout_keeps_one_mask_a_sequence(mask: Tensor | None) -> None:
    network = _network(output_dropout=0.5, dropout_shape="sequence").train()
    torch.manual_seed(0)
    dropped = network(_IDS, mask).hidden_states[0] == 0
    assert (dropped == dropped[0]).all()
    assert dropped.any()
    element = _network(output_dropout=0.5).train()(_IDS).hidden_states[0] == 0
    assert not (element == element[0]).all()


def test_embedding_dropout_hides_a_word_wherever_it_occurs() -> None:
    network = _network(embedding_dropout=0.5).train()
    torch.manual_seed(0)
    rows = network._embed(torch.arange(20).repeat(2)[None])[0]
    assert torch.equal(rows[:20], rows[20:])
    hidden = (rows[:20] == 0).all(-1)
    assert 0 < int(hidden.sum()) < 20
    torch.testing.assert_close(rows[:20][~hidden], 2 * network.tokens.weight[~hidden])


def test_regularisation_is_that_of_the_paper() -> None:
    """AR is of the dropped output, TAR of the raw one; a packed text has the same sum."""
    network = _network(
        activation_regularization=2.0, temporal_activation_regularization=1.0, output_dropout=0.4
    ).train()
    torch.manual_seed(0)
    output = network(_IDS)
    raw = replace(network.config, output_dropout=0.0)
    plain = RecurrentNetwork(raw)
    plain.load_state_dict(network.state_dict())
    h = plain.eval()(_IDS).hidden_states
    expected = 2 * output.hidden_states.square().mean() + (h[:, 1:] - h[:, :-1]).square().mean()
    torch.testing.assert_close(output.penalty, expected)
    assert network.eval()(_IDS).penalty is None

    plain = _network(temporal_activation_regularization=1.0).train()
    packed, h = plain(_IDS, _MASK).penalty, plain(_IDS, _MASK).hidden_states
    changes = [h[0, 1:] - h[0, :-1], h[1, 3:] - h[1, 2:-1]]
    torch.testing.assert_close(packed, torch.cat(changes).square().mean())


def test_the_last_layer_of_awd_is_tied() -> None:
    shape = {"hidden_size": 4, "embedding_size": 4, "inner_size": 9, "num_layers": 3}
    network = _network(**shape)
    assert [layer.hidden_size for layer in network.layers] == [9, 9, 4]
    assert network.language_head.weight is None
    with pytest.raises(InputError, match="cannot be cut there"):
        network.first_layers(2)
    assert len(_network().first_layers(1).blocks) == 1


def test_the_forget_gate_starts_open_once() -> None:
    layer = _network().layers[0]
    assert (layer.bias_ih + layer.bias_hh)[6:12].tolist() == [1.0] * 6
