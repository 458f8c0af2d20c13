"""The decoder that rebuilds a text from a vector: its inputs and its shared layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from idiolect.encoding.objectives.denoiser import Denoiser, damage
from idiolect.nn.embedding import ExtendedRows
from training import models


def test_deleted_words() -> None:
    words = ["a", "b", "c", "d"]
    assert damage(words, [0.1, 0.61, 0.59, 0.9]) == ["b", "d"]
    assert damage(words, [0.1, 0.2, 0.3, 0.0]) == ["c"], "one word always stays"
    assert damage(words, [0.1, 0.2, 0.3, 0.0], share=0.0) == words
    assert damage([], []) == []


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "llama"])
def test_loss_is_the_cross_entropy_of_the_next_token(model_type: str) -> None:
    """Against one text at a time, and a softmax over the whole vocabulary."""
    network = models.model(model_type).network.eval()
    torch.manual_seed(0)
    denoiser = Denoiser(network).eval()
    ids = torch.randint(4, 45, (3, 7))
    mask = torch.arange(7) < torch.tensor([7, 4, 5])[:, None]
    vectors = torch.randn(3, 16)
    together = denoiser.loss(network, ids, mask, vectors)
    total = torch.zeros(())
    for text, real, vector in zip(ids, mask, vectors, strict=True):
        row = text[real][None]
        hidden = network.decode(denoiser.stack, row[:, :-1], None, memory=vector[None, None])
        scores = network.score_vocabulary(hidden)[0]
        total = total + F.cross_entropy(scores, row[0, 1:], reduction="sum")
    torch.testing.assert_close(together, total)


def test_it_depends_only_on_the_vector_and_previous_tokens() -> None:
    network = models.model("bert").network.eval()
    denoiser = Denoiser(network).eval()
    ids, vector = torch.randint(4, 45, (1, 6)), torch.randn(1, 1, 16)
    before = network.decode(denoiser.stack, ids, None, memory=vector)
    later = ids.clone()
    later[0, 4] = (ids[0, 4] + 1) % 40
    after = network.decode(denoiser.stack, later, None, memory=vector)
    torch.testing.assert_close(after[0, :4], before[0, :4])
    assert not torch.allclose(after[0, 4:], before[0, 4:])
    other = network.decode(denoiser.stack, ids, None, memory=-vector)
    assert not torch.allclose(other[0, 0], before[0, 0])


def test_layers_are_the_networks_own() -> None:
    network = models.model("bert").network
    own = {id(parameter) for parameter in network.parameters()}
    fresh = [name for name, p in Denoiser(network).named_parameters() if id(p) not in own]
    assert fresh
    assert all(".cross" in name for name in fresh)


def test_a_network_without_head_gets_one() -> None:
    network = models.model("bert").network
    network.heads = torch.nn.ModuleDict()
    denoiser = Denoiser(network)
    assert denoiser.head is not None
    ids, mask = torch.randint(4, 45, (2, 5)), torch.ones(2, 5, dtype=torch.bool)
    denoiser.loss(network, ids, mask, torch.randn(2, 16)).backward()
    rows = network.tokens.weight
    assert isinstance(rows, ExtendedRows)
    assert rows.original.grad is None, "the published rows are frozen"
    assert rows.added.grad is not None
