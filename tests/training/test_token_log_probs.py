"""Log-probabilities of tokens, and their gradients, against torch's own."""

from __future__ import annotations

import pytest
import torch

from idiolect.training.objectives.token_log_probs import token_log_probs


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients(softcap: float | None, temperature: float) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(40, 8, requires_grad=True)
    blocks = [
        (torch.randn(20, 8), torch.randn(20)),
        (torch.randn(5, 8, requires_grad=True), torch.randn(5, requires_grad=True)),
    ]
    targets, weights = torch.randint(25, (40,)), torch.randn(40)
    learnt = [hidden, *blocks[1]]

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.cat([hidden @ w.t() + b for w, b in blocks], -1)
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        logs = (scores / temperature).log_softmax(-1)
        return logs[torch.arange(40), targets], -(logs.exp() * logs).sum(-1)

    expected, entropy = plain()
    found, own_entropy = token_log_probs(
        hidden, targets, blocks, softcap=softcap, temperature=temperature
    )
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(own_entropy, entropy, atol=1e-5)
    theirs = torch.autograd.grad((expected * weights).sum(), learnt)
    ours = torch.autograd.grad((found * weights).sum(), learnt)
    for own, other in zip(ours, theirs, strict=True):
        assert torch.allclose(own, other, atol=1e-5)
