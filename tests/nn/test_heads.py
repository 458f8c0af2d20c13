"""Heads: which token stands for a text, and what is made of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from idiolect.errors import ConfigError, InputError
from idiolect.nn.cache import Cache
from idiolect.nn.heads import Pooler, RewardHead
from idiolect.nn.transformer import Transformer
from nn.test_attention import BASE, network

IDS = torch.tensor([[5, 6, 7, 8], [5, 7, 9, 0], [7, 5, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("pool", "expected"), [("first", [0, 0, 0]), ("last", [3, 2, 1]), ("end", [2, 1, 0])]
)
def test_the_pooler_picks_the_right_token(pool: str, expected: list[int]) -> None:
    pooler = Pooler(replace(BASE, pool=pool, eos_token_id=7))
    hidden = torch.randn(3, 4, 16)
    picked = pooler(hidden, IDS, MASK)
    assert torch.equal(picked, hidden[torch.arange(3), torch.tensor(expected)])
    flipped = pooler(hidden.flip(1), IDS.flip(1), MASK.flip(1))
    if pool == "first":  # of the real tokens, which are now in the other order
        assert torch.equal(flipped, hidden[torch.arange(3), torch.tensor([3, 2, 1])])


def test_a_text_without_its_end_is_refused() -> None:
    pooler = Pooler(replace(BASE, pool="end", eos_token_id=42))
    with pytest.raises(InputError, match=r"no end token \(id 42\)"):
        pooler(torch.randn(3, 4, 16), IDS, MASK)
    with pytest.raises(ConfigError, match="set eos_token_id"):
        replace(BASE, pool="end")


def test_the_dense_layer_is_berts() -> None:
    pooler = Pooler(replace(BASE, pool="first", pool_dense=True))
    hidden = torch.randn(3, 4, 16)
    expected = torch.tanh(hidden[:, 0] @ pooler.dense.weight.T + pooler.dense.bias)
    torch.testing.assert_close(pooler(hidden, IDS, None), expected)


def test_a_reward_is_one_number_a_text() -> None:
    net = network(tasks=("reward",), pool="last")
    with torch.no_grad():
        output = net(IDS, MASK)
        rewards = output.logits
        head = net.heads["reward"]
        assert isinstance(head, RewardHead)
        last = output.hidden_states[torch.arange(3), torch.tensor([3, 2, 1])]
        torch.testing.assert_close(rewards, (last @ head.output.weight.T + head.output.bias)[:, 0])
        # Read in two steps, the text has the same reward.
        cache = Cache()
        net(IDS[:1, :2], MASK[:1, :2], cache=cache)
        again = net(IDS[:1, 2:], MASK[:1], cache=cache).logits
    assert rewards.shape == (3,)
    torch.testing.assert_close(again, rewards[:1])


def test_several_tasks_share_a_body() -> None:
    net = network(tasks=("language", "next_sentence"), pool="first", pool_dense=True)
    with torch.no_grad():
        output = net(IDS, MASK)
    assert output.logits.shape == (3, 4, 50)
    assert output.next_sentence.shape == (3, 2)


def test_texts_need_a_pool() -> None:
    for task in ("sequence", "reward", "next_sentence"):
        with pytest.raises(ConfigError, match="set pool"):
            Transformer(replace(BASE, tasks=(task,)))
