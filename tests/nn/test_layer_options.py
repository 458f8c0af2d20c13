"""What newer families add to the layers: by hand, and the same alone, packed, padded and cached."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from idiolect.nn.attention import Visibility
from idiolect.nn.basic import RMSNorm, softcap
from idiolect.nn.cache import Cache
from idiolect.nn.config import TransformerConfig
from idiolect.nn.position import Rotary, rotate
from idiolect.nn.transformer import Transformer

BASE = TransformerConfig(
    vocab_size=50,
    hidden_size=16,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=24,
    num_decoder_layers=3,
    max_position_embeddings=32,
    position="rotary",
    norm="rms",
)
OPTIONS: dict[str, dict[str, Any]] = {
    "norm after the sub-layer": {"norm_placement": "after"},
    "norms on both sides": {"norm_placement": "before_and_after", "norm_offset": 1.0},
    "no norm at first": {"first_attention_norm": False, "norm": "layer", "norm_bias": False},
    "side by side": {"parallel_residual": True},
    "norm over all heads": {"qk_norm": "all_heads"},
    "norm per head": {"qk_norm": "per_head", "norm_offset": 1.0},
    "half of each head turned": {"partial_rotary_factor": 0.5},
    "another base in windows": {"local_rope_theta": 10.0, "windows": (3, None)},
    "a layer without positions": {"rotary_layers": (True, False), "windows": (None, 4)},
    "bounded scores": {"score_softcap": 0.3, "logit_softcap": 0.2, "windows": (None, 3)},
    "bounded scores with a bias": {"score_softcap": 0.3, "position": "alibi"},
    "bounded scores with relative keys": {
        "score_softcap": 0.3,
        "position": "shaw",
        "relative_buckets": 5,
    },
}


def network(**changes: Any) -> Transformer:
    torch.manual_seed(0)
    built = Transformer(replace(BASE, **changes)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return built


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("side", ["num_encoder_layers", "num_decoder_layers"])
def test_a_text_is_read_the_same_alone_and_among_others(side: str, options: dict[str, Any]) -> None:
    net = network(**{"num_decoder_layers": 0, side: 3} | options)
    ids = torch.randint(0, 50, (2, 9))
    mask = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 3, 3], [1, 1, 1, 1, 1, 1, 0, 0, 0]])
    texts = ((0, 0, 4), (0, 4, 7), (0, 7, 9), (1, 0, 6))
    with torch.no_grad():
        packed = net(ids, mask).logits
        # What accelerators compute: a cache asks for it, which an encoder must not have.
        padded = net(ids, mask, cache=Cache()).logits if net.kind == "causal" else packed
        for row, start, end in texts:
            alone = net(ids[row : row + 1, start:end]).logits[0]
            for together in (packed, padded):
                torch.testing.assert_close(together[row, start:end], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_cache_reads_each_token_once(options: dict[str, Any]) -> None:
    net, ids = network(**options), torch.randint(0, 50, (2, 12))
    with torch.no_grad():
        whole, cache = net(ids).logits, Cache()
        pieces = [net(ids[:, a:b], cache=cache).logits for a, b in ((0, 5), (5, 6), (6, 12))]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("placement", "parallel"),
    [
        ("before", False),
        ("before", True),
        ("after_sum", False),
        ("after", False),
        ("before_and_after", False),
    ],
)
def test_norms_stand_where_they_should(placement: str, parallel: bool) -> None:
    net = network(norm_placement=placement, parallel_residual=parallel, position="none")
    assert net.decoder is not None
    layer = net.decoder.layers[0]
    x = torch.randn(1, 1, 16)

    def attend(y: torch.Tensor) -> torch.Tensor:
        # A lone token attends to itself.
        value = layer.attention.value(y).view(1, 1, 2, 4).repeat_interleave(2, 2).flatten(2)
        return layer.attention.output(value)

    def add(x: torch.Tensor, norm: Any, output_norm: Any, f: Any) -> torch.Tensor:
        return {
            "before": lambda: x + f(norm(x)),
            "after_sum": lambda: norm(x + f(x)),
            "after": lambda: x + norm(f(x)),
            "before_and_after": lambda: x + output_norm(f(norm(x))),
        }[placement]()

    middle = add(x, layer.attention_norm, layer.attention_output_norm, attend)
    expected = add(
        middle, layer.feed_forward_norm, layer.feed_forward_output_norm, layer.feed_forward
    )
    if parallel:
        expected = middle + layer.feed_forward(layer.feed_forward_norm(x))
    net.decoder.layers, net.decoder.final_norm = torch.nn.ModuleList([layer]), None
    place = torch.arange(1)
    visibility = Visibility(causal=True, query_positions=place, key_positions=place)
    torch.testing.assert_close(net.decoder(x, visibility, place), expected)


def test_a_norm_with_an_offset() -> None:
    plain, offset = RMSNorm(6, epsilon=1e-3), RMSNorm(6, epsilon=1e-3, offset=1.0)
    x = torch.randn(4, 6)
    torch.testing.assert_close(offset(x), plain(x))
    assert not offset.weight.any(), "the stored weight of a fresh norm is zero"
    offset.weight.data.normal_()
    plain.weight.data = offset.weight + 1
    torch.testing.assert_close(offset(x), plain(x))
    half = offset.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16


def test_fresh_norms_multiply_by_one() -> None:
    net = network(norm_placement="before_and_after", norm_offset=1.0, qk_norm="per_head")
    net.init_weights(seed=0)
    norms = [module for module in net.modules() if isinstance(module, RMSNorm)]
    assert len(norms) == 3 * 6 + 1
    assert not any(norm.weight.any() for norm in norms)


def test_only_the_first_dimensions_turn() -> None:
    rotation = Rotary(4, base=100.0, scaling=None)(torch.arange(5), torch.float32)
    x = torch.randn(5, 2, 10)
    turned = rotate(x, rotation)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    torch.testing.assert_close(turned[..., :4], rotate(x[..., :4], rotation))
    assert not torch.allclose(turned[1:, :, :4], x[1:, :, :4])


def test_bounds_are_smooth() -> None:
    scores = torch.tensor([-1e9, -0.01, 0.0, 0.01, 1e9])
    torch.testing.assert_close(softcap(scores, 3.0), torch.tensor([-3.0, -0.01, 0.0, 0.01, 3.0]))
