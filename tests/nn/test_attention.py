"""Attention written out with loops; grids, packed rows, documents, windows and caches agree."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.nn.attention import Attention, Visibility
from idiolect.nn.cache import Cache, LayerCache
from idiolect.nn.config import TransformerConfig
from idiolect.nn.packing import Packing, positions_and_documents
from idiolect.nn.transformer import Transformer

KINDS = ("none", "learned", "sinusoidal", "rotary", "buckets", "learned_buckets", "shaw", "alibi")
KINDS += ("untied",)
BASE = TransformerConfig(
    vocab_size=50,
    hidden_size=16,
    num_attention_heads=4,
    intermediate_size=24,
    num_decoder_layers=2,
    max_position_embeddings=32,
    relative_buckets=9,
    relative_distance=16,
)


def network(**changes: object) -> Transformer:
    torch.manual_seed(0)
    built = Transformer(replace(BASE, **changes)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def by_hand(module: Attention, x: Tensor, *, causal: bool, window: int | None) -> Tensor:
    """One text, loops over heads, queries and keys. Shape: (length, width)."""
    length = len(x)
    shared = module.heads // module.key_heads
    query = (x @ module.query.weight.T + module.query.bias).view(length, module.heads, -1)
    key = (x @ module.key.weight.T + module.key.bias).view(length, module.key_heads, -1)
    value = (x @ module.value.weight.T + module.value.bias).view(length, module.key_heads, -1)
    gathered = torch.zeros(length, module.heads, module.width)
    for head, i in product(range(module.heads), range(length)):
        seen = [
            j
            for j in range(length)
            if (not causal or j <= i)
            and (window is None or (j > i - window and (causal or j < i + window)))
        ]
        scores = []
        for j in seen:
            k = key[j, head // shared]
            if module.relative_keys is not None:
                k = k + module.relative_keys(torch.tensor([i]), torch.tensor([j]))[0, 0]
            scores.append(query[i, head] @ k / math.sqrt(module.width))
        weights = torch.stack(scores).softmax(0)
        for weight, j in zip(weights, seen, strict=True):
            v = value[j, head // shared]
            if module.relative_values is not None:
                v = v + module.relative_values(torch.tensor([i]), torch.tensor([j]))[0, 0]
            gathered[i, head] += weight * v
    return gathered.flatten(1) @ module.output.weight.T + module.output.bias


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("position", ["none", "shaw"])
def test_attention_by_hand(causal: bool, window: int | None, kv_heads: int, position: str) -> None:
    torch.manual_seed(0)
    config = replace(BASE, num_key_value_heads=kv_heads, position=position, relative_buckets=5)
    module = Attention(config, window=window)
    x = torch.randn(2, 7, 16)
    place = torch.arange(7)
    visibility = Visibility(causal=causal, query_positions=place, key_positions=place)
    with torch.no_grad():
        ours = module(x, visibility)
        for row in range(2):
            expected = by_hand(module, x[row], causal=causal, window=window)
            torch.testing.assert_close(ours[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", KINDS)
@pytest.mark.parametrize("side", ["num_encoder_layers", "num_decoder_layers"])
@pytest.mark.parametrize("lengths", [(9, 3, 6, 1), (1, 1, 9, 9, 9, 2, 9, 1)])
def test_packing_changes_nothing(position: str, side: str, lengths: tuple[int, ...]) -> None:
    """A padded batch, on a CPU packed, gives each text what it gets alone."""
    layers = {"num_encoder_layers": 0, "num_decoder_layers": 0, side: 2}
    net = network(position=position, windows=(None, 4), num_key_value_heads=2, **layers)
    ids = torch.randint(0, 50, (len(lengths), 9))
    mask = torch.stack([torch.arange(9) < n for n in lengths])
    with torch.no_grad():
        together = net(ids, mask).hidden_states
        for row, length in enumerate(lengths):
            alone = net(ids[row : row + 1, :length]).hidden_states
            torch.testing.assert_close(together[row, :length], alone[0], rtol=1e-4, atol=1e-5)
            assert not together[row, length:].any()


@pytest.mark.parametrize("position", KINDS)
def test_grid_and_packed_rows_agree(position: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an accelerator computes with masks is what a CPU computes with spans."""
    net = network(position=position, windows=(None, 4))
    ids = torch.randint(0, 50, (3, 8))
    mask = torch.tensor(
        [[0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 2, 2, 3, 3, 3]]
    )
    with torch.no_grad():
        packed = net(ids, mask).hidden_states
        # A cache asks for the grid; an empty one changes nothing else.
        grid = net(ids, mask, cache=Cache()).hidden_states
    real = mask > 0
    torch.testing.assert_close(packed[real], grid[real], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", KINDS)
def test_holes_in_a_text_do_not_count(position: str) -> None:
    """A prompt padded on the right and continued has padding inside; distances skip it."""
    net = network(position=position, windows=(None, 3))
    ids = torch.randint(0, 50, (1, 8))
    mask = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        alone = net(ids[mask > 0][None]).hidden_states[0]
        packed = net(ids, mask).hidden_states[mask > 0]
        grid = net(ids, mask, cache=Cache()).hidden_states[mask > 0]
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grid, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", KINDS)
def test_documents_in_a_row_do_not_see_each_other(position: str) -> None:
    net = network(position=position)
    ids = torch.randint(0, 50, (1, 9))
    mask = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 3, 3]])
    with torch.no_grad():
        row = net(ids, mask).hidden_states[0]
        for start, end in ((0, 4), (4, 7), (7, 9)):
            alone = net(ids[:, start:end]).hidden_states[0]
            torch.testing.assert_close(row[start:end], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", KINDS)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_cache_reads_each_token_once(position: str, kv_heads: int) -> None:
    net = network(position=position, num_key_value_heads=kv_heads, windows=(3, None))
    ids = torch.randint(0, 50, (2, 90))[:, :20]
    with torch.no_grad():
        whole = net(ids).hidden_states
        cache = Cache()
        steps = [net(ids[:, i : i + 1], cache=cache).hidden_states for i in range(20)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-5)


def test_cache_grows_and_selects_rows() -> None:
    cache = LayerCache()
    parts = [torch.randn(3, 2, n, 4) for n in (1, 70, 1, 200)]
    for part in parts:
        keys, values = cache.append(part, -part)
    assert torch.equal(keys, torch.cat(parts, 2))
    assert torch.equal(values, -torch.cat(parts, 2))
    cache.select(torch.tensor([2, 0]))
    keys, _ = cache.append(parts[0][:2], parts[0][:2])
    assert torch.equal(keys[:, :, :-1], torch.cat(parts, 2)[[2, 0]])


@pytest.mark.parametrize("position", KINDS)
def test_encoder_decoder_pairs_texts(position: str) -> None:
    net = network(position=position, num_encoder_layers=2, decoder_start_token_id=0)
    ids = torch.randint(0, 50, (3, 8))
    target = torch.randint(0, 50, (3, 5))
    mask = torch.stack([torch.arange(8) < n for n in (8, 2, 5)])
    target_mask = torch.stack([torch.arange(5) < n for n in (1, 5, 3)])
    with torch.no_grad():
        together = net(
            ids, mask, decoder_input_ids=target, decoder_attention_mask=target_mask
        ).hidden_states
        for row, (n, m) in enumerate(zip((8, 2, 5), (1, 5, 3), strict=True)):
            alone = net(
                ids[row : row + 1, :n], decoder_input_ids=target[row : row + 1, :m]
            ).hidden_states[0]
            torch.testing.assert_close(together[row, :m], alone, rtol=1e-4, atol=1e-5)


def test_each_document_reads_its_own_source() -> None:
    net = network(position="rotary", num_encoder_layers=1, decoder_start_token_id=0)
    ids, target = torch.randint(0, 50, (2, 6)), torch.randint(0, 50, (2, 4))
    mask = torch.tensor([[1, 1, 1, 2, 2, 2], [1, 1, 0, 0, 0, 0]])
    target_mask = torch.tensor([[1, 2, 2, 2], [1, 1, 1, 0]])
    with torch.no_grad():
        together = net(
            ids, mask, decoder_input_ids=target, decoder_attention_mask=target_mask
        ).hidden_states
        alone = net(ids[:1, 3:], decoder_input_ids=target[:1, 1:]).hidden_states[0]
    torch.testing.assert_close(together[0, 1:], alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="text 1 of the batch has a target and no source"):
        net(
            ids,
            mask * torch.tensor([[1], [0]]),
            decoder_input_ids=target,
            decoder_attention_mask=target_mask,
        )


def test_a_whole_cache_selects_rows() -> None:
    net = network(position="rotary", num_encoder_layers=1, decoder_start_token_id=0)
    ids, target = torch.randint(0, 50, (3, 6)), torch.randint(0, 50, (3, 4))
    rows = torch.tensor([2, 0])
    with torch.no_grad():
        cache = Cache()
        net(ids, decoder_input_ids=target[:, :3], cache=cache)
        cache.select(rows)
        step = net(ids[rows], decoder_input_ids=target[rows, 3:], cache=cache).logits
        whole = net(ids[rows], decoder_input_ids=target[rows]).logits
    torch.testing.assert_close(step[:, 0], whole[:, -1], rtol=1e-4, atol=1e-5)


def test_gradients_flow_through_packed_batches() -> None:
    ids = torch.randint(0, 50, (2, 6))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    net = network(position="rotary")
    net(ids, mask).hidden_states.pow(2).sum().backward()
    packed = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    total = sum(net(ids[i : i + 1, :n]).hidden_states.pow(2).sum() for i, n in ((0, 6), (1, 3)))
    total.backward()
    for name, gradient in packed.items():
        torch.testing.assert_close(dict(net.named_parameters())[name].grad, gradient)


def test_dropout_acts_in_training_only() -> None:
    net = network(dropout=0.5, attention_dropout=0.5, activation_dropout=0.5)
    ids = torch.randint(0, 50, (1, 6))
    assert torch.equal(net(ids).hidden_states, net(ids).hidden_states)
    net.train()
    assert not torch.equal(net(ids).hidden_states, net(ids).hidden_states)


def test_places_restart_with_each_document() -> None:
    positions, documents = positions_and_documents(torch.tensor([[0, 1, 0, 1, 2, 2, 5, 0]]))
    assert positions.tolist() == [[0, 0, 0, 1, 0, 1, 0, 0]]
    assert documents.tolist() == [[0, 1, 0, 1, 2, 2, 5, 0]]
    packing = Packing.of(torch.tensor([[0, 1, 1, 2], [3, 0, 0, 0]]))
    # Shorter documents come first, so that those of equal length are neighbours.
    assert packing.spans == [(0, 1), (1, 2), (2, 4)]
    assert packing.documents == [(0, 2), (1, 3), (0, 1)]
    assert packing.positions.tolist() == [0, 0, 0, 1]
    grid = torch.arange(8.0).view(2, 4, 1)
    assert packing.unpack(packing.pack(grid)).flatten().tolist() == [0, 1, 2, 3, 4, 0, 0, 0]


def test_an_empty_text_is_harmless() -> None:
    net = network()
    ids = torch.randint(0, 50, (2, 4))
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0]])
    with torch.no_grad():
        for cache in (None, Cache()):
            assert net(ids, mask, cache=cache).hidden_states.isfinite().all()


def test_bad_input_is_named() -> None:
    net = network()
    with pytest.raises(InputError, match="id 50 is outside the 50 embedding rows"):
        net(torch.tensor([[1, 50]]))
    with pytest.raises(InputError, match="33 tokens, but the model has 32"):
        net(torch.zeros(1, 33, dtype=torch.long))
    for mask in (torch.ones(1, 33), torch.tensor([[0] + 33 * [1]])):
        ids = torch.zeros(1, mask.shape[1], dtype=torch.long)
        with pytest.raises(InputError, match="33 tokens, but the model has 32"):
            net(ids, mask)
    assert net(torch.zeros(1, 40, dtype=torch.long), torch.arange(1, 41)[None] // 21 + 1)
    with pytest.raises(InputError, match="do not ascend"):
        net(torch.zeros(1, 3, dtype=torch.long), torch.tensor([[2, 1, 1]]))
    with pytest.raises(InputError, match="pass integers"):
        net(torch.zeros(1, 3))
    with pytest.raises(InputError, match="no type embedding"):
        net(torch.zeros(1, 3, dtype=torch.long), token_type_ids=torch.zeros(1, 3, dtype=torch.long))
    with pytest.raises(InputError, match="encoder-decoder network"):
        net(
            torch.zeros(1, 3, dtype=torch.long),
            decoder_input_ids=torch.zeros(1, 3, dtype=torch.long),
        )
    encoder = network(num_decoder_layers=0, num_encoder_layers=1, type_vocab_size=2)
    with pytest.raises(InputError, match="needs the whole text"):
        encoder(torch.zeros(1, 3, dtype=torch.long), cache=Cache())
    with pytest.raises(InputError, match="type 2 is outside the 2"):
        encoder(torch.zeros(1, 3, dtype=torch.long), token_type_ids=torch.full((1, 3), 2))
    with pytest.raises(InputError, match="mask has the shape"):
        net(torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 4))
    with pytest.raises(InputError, match="shape"):
        net(torch.zeros(3, dtype=torch.long))
    with pytest.raises(InputError, match="no encoder"):
        net.encode(torch.zeros(1, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "swoosh"}, "one of gelu"),
        ({"head_activation": "swoosh"}, "one of gelu"),
        ({"position": "shaw", "relative_buckets": 8}, "odd"),
        ({"position": "buckets", "relative_buckets": 2}, "at least 4"),
        ({"position": "buckets", "relative_buckets": 32, "relative_distance": 16}, "more than"),
        ({"position": "untied", "max_position_embeddings": 0}, "set max_position_embeddings"),
        ({"position": "learned_buckets", "relative_buckets": 2}, "at least 4"),
        (
            {"position": "learned_buckets", "max_position_embeddings": 0},
            "set max_position_embeddings",
        ),
        ({"num_encoder_layers": -1}, "at least 0"),
        ({"dropout": 1.0}, "less than 1"),
        ({"hidden_size": 15}, "not a multiple"),
        ({"num_key_value_heads": 3}, "share 3"),
        ({"num_decoder_layers": 0}, "has no layers"),
        ({"max_position_embeddings": 0}, "set max_position_embeddings"),
        ({"windows": (0,)}, "at least 1"),
        ({"tasks": ("sequence",)}, "set pool"),
        ({"tasks": ("juggling",)}, "one of language"),
        ({"position": "rotary", "head_dim": 3}, "even attention head size"),
        ({"position": "rotary", "partial_rotary_factor": 0.25}, "even attention head size, not 1"),
        ({"partial_rotary_factor": 0.0}, "above 0, at most 1"),
        ({"norm_placement": "around"}, "one of before"),
        ({"qk_norm": "some"}, "one of none"),
        ({"norm_offset": 1.0}, "only RMS norms"),
        ({"parallel_residual": True, "norm_placement": "after"}, "set norm_placement"),
        ({"parallel_residual": True, "num_encoder_layers": 1}, "only a decoder"),
        ({"first_attention_norm": False, "norm_placement": "after_sum"}, "first_attention_norm"),
        ({"score_softcap": 0.0}, "score_softcap is 0.0"),
        ({"logit_softcap": -1.0}, "above 0, or None"),
        ({"local_rope_theta": 0.0}, "above 0, or None"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Transformer(replace(BASE, **changes))
