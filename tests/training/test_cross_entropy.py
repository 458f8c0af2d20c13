"""The chunked loss against the plain one: value and every gradient, whatever trains."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idiolect.training.objectives import cross_entropy as module
from idiolect.training.objectives.cross_entropy import Block, cross_entropy, score_in_chunks

TOKENS, WIDTH, OLD, NEW = 70, 12, 50, 9


def _parts(*, bias: bool, trained: tuple[bool, bool]) -> tuple[Tensor, Tensor, list[Block]]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator).requires_grad_()
    targets = torch.randint(OLD + NEW, (TOKENS,), generator=generator)
    blocks: list[Block] = []
    for rows, train in zip((OLD, NEW), trained, strict=True):
        weight = torch.randn(rows, WIDTH, generator=generator).requires_grad_(train)
        own = torch.randn(rows, generator=generator).requires_grad_(train) if bias else None
        blocks.append((weight, own))
    return hidden, targets, blocks


def _plain(
    hidden: Tensor, targets: Tensor, blocks: list[Block], bound: float | None = None
) -> Tensor:
    rows = torch.cat([weight for weight, _ in blocks])
    biases = [bias for _, bias in blocks if bias is not None]
    scores = F.linear(hidden, rows, torch.cat(biases) if biases else None)
    if bound is not None:
        scores = bound * torch.tanh(scores / bound)
    return F.cross_entropy(scores, targets, reduction="sum")


@pytest.mark.parametrize(("bias", "old", "new"), list(itertools.product((False, True), repeat=3)))
@pytest.mark.parametrize("bound", [None, 2.0])
def test_value_and_gradients(
    monkeypatch: pytest.MonkeyPatch, bias: bool, old: bool, new: bool, bound: float | None
) -> None:
    monkeypatch.setitem(
        module._CHUNK_BYTES, "cpu", 4 * (OLD + NEW) * 16
    )  # five chunks, the last short
    hidden, targets, blocks = _parts(bias=bias, trained=(old, new))
    wanted = [t for t in (hidden, *itertools.chain(*blocks)) if t is not None and t.requires_grad]
    ours = cross_entropy(hidden, targets, blocks, softcap=bound)
    theirs = _plain(hidden, targets, blocks, bound)
    torch.testing.assert_close(ours, theirs)
    # A scale reaches the gradients although these were made in the forward pass.
    mine = torch.autograd.grad(0.25 * ours, wanted)
    reference = torch.autograd.grad(0.25 * theirs, wanted)
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b)


def test_products_in_bfloat16_give_the_same_gradients_but_for_their_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(module._CHUNK_BYTES, "cpu", 4 * (OLD + NEW) * 16)
    hidden, targets, blocks = _parts(bias=True, trained=(True, True))
    wanted = [t for t in (hidden, *itertools.chain(*blocks)) if t is not None]
    with torch.autocast("cpu", torch.bfloat16):
        ours = cross_entropy(hidden, targets, blocks)
    mine = torch.autograd.grad(ours, wanted)
    reference = torch.autograd.grad(_plain(hidden, targets, blocks), wanted)
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.02 * float(b.abs().max()))


def test_no_gradients_are_made_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, targets, blocks = _parts(bias=False, trained=(False, True))
    made: list[tuple[int, ...]] = []
    zeros_like = torch.zeros_like

    def noted(tensor: Tensor, **options: object) -> Tensor:
        made.append(tuple(tensor.shape))
        return zeros_like(tensor, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "zeros_like", noted)
    cross_entropy(hidden, targets, blocks).backward()
    assert made == [(NEW, WIDTH)], "only the trained rows have a gradient buffer"
    made.clear()
    with torch.no_grad():
        cross_entropy(hidden, targets, blocks)
    assert not made


def test_scores_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._CHUNK_BYTES, "cpu", 4 * (OLD + NEW) * 16)
    hidden, _, blocks = _parts(bias=True, trained=(False, False))
    largest = 0
    with torch.no_grad():
        for part, scores in score_in_chunks(hidden, blocks):
            largest = max(largest, len(scores[0]))
            assert [s.shape[-1] for s in scores] == [OLD, NEW]
            assert part.stop - part.start == 16
    assert largest == 16


def test_no_targets_is_zero() -> None:
    hidden, targets, blocks = _parts(bias=False, trained=(False, True))
    loss = cross_entropy(hidden[:0], targets[:0], blocks)
    assert loss == 0
    loss.backward()
