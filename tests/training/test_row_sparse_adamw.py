"""Sparse gradients: rows that occur are updated as by `torch`, all others stay as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from idiolect.training.row_sparse_adamw import RowSparseAdamW, clip_gradients


def _grads(steps: int, *, sparse: bool) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    grads = []
    for _ in range(steps):
        dense = torch.zeros(6, 3)
        dense[torch.randint(0, 5, (3,), generator=rng)] = torch.randn(3, generator=rng)
        grads.append(dense.to_sparse(1) if sparse else dense)
    return grads


def test_rows_move_as_in_sparse_adam() -> None:
    torch.manual_seed(1)
    ours, theirs = (nn.Parameter(torch.ones(6, 3)) for _ in range(2))
    settings = {"lr": 0.1, "betas": (0.9, 0.95), "eps": 1e-8}
    mine = RowSparseAdamW([ours], **settings, weight_decay=0.0, fused=True)
    reference = torch.optim.SparseAdam([theirs], **settings)
    for grad in _grads(5, sparse=True):
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        mine.step()
        reference.step()
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert torch.equal(ours[5], torch.ones(3))


def test_dense_gradients_move_as_in_adamw() -> None:
    ours, theirs = (nn.Parameter(torch.ones(6, 3)) for _ in range(2))
    mine = RowSparseAdamW([ours], lr=0.1, fused=True)
    reference = torch.optim.AdamW([theirs], lr=0.1, fused=True)
    for grad in _grads(3, sparse=False):
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        mine.step()
        reference.step()
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("maximum", [0.5, 100.0])
def test_the_norm_is_that_of_dense_gradients(maximum: float) -> None:
    grads = _grads(2, sparse=False)
    dense = [nn.Parameter(torch.zeros(6, 3)) for _ in grads]
    mixed = [nn.Parameter(torch.zeros(6, 3)) for _ in grads]
    for one, other, grad in zip(dense, mixed, grads, strict=True):
        one.grad, other.grad = grad.clone(), grad.clone()
    mixed[0].grad = grads[0].to_sparse(1)
    without = nn.Parameter(torch.zeros(2))
    expected = nn.utils.clip_grad_norm_(dense, maximum)
    assert torch.allclose(clip_gradients([*mixed, without], maximum), expected)
    for one, other in zip(dense, mixed, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad.to_dense(), atol=1e-6)
