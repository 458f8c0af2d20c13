"""Compare a training step of an extended embedding with `peft`'s trainable tokens.

    python benchmarks/embedding.py

Both sides have the same 128,000 original and 2,000 new rows of width 1,024, and the same ids, one
in eight of them new. They run forward, backward and an AdamW step. `peft` rebuilds the whole matrix
in every forward pass; ours only reads the original matrix.
"""

from __future__ import annotations

import resource

import torch
from peft import TrainableTokensConfig, get_peft_model
from torch import Tensor, nn

from idiolect.nn.embedding import ExtendedEmbedding, ExtendedRows
from paired import compare
from record import figure

THREADS = 2
ROWS, ADDED, WIDTH = 128_000, 2_000, 1_024
BATCHES = ((8, 512), (1, 128))
TARGET = 5.0


def step(module: nn.Module, ids: Tensor, grad: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Run forward, backward and an optimizer step."""
    optimizer.zero_grad()
    out: Tensor = module(ids)
    out.backward(grad)
    optimizer.step()
    return out.detach()


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    original, added = torch.randn(ROWS, WIDTH), torch.randn(ADDED, WIDTH)

    ours = ExtendedEmbedding(ExtendedRows(original, added, first_id=ROWS))
    dense = nn.Embedding.from_pretrained(torch.cat([original, added]))
    theirs = get_peft_model(
        nn.Sequential(dense),
        TrainableTokensConfig(token_indices=list(range(ROWS, ROWS + ADDED)), target_modules=["0"]),
    )
    optimizers = [
        torch.optim.AdamW([p for p in side.parameters() if p.requires_grad], weight_decay=0.0)
        for side in (ours, theirs)
    ]
    for batch, length in BATCHES:
        ids = torch.randint(0, ROWS, (batch, length))
        new = torch.rand(batch, length) < 1 / 8
        ids[new] = torch.randint(ROWS, ROWS + ADDED, (int(new.sum()),))
        grad = torch.randn(batch, length, WIDTH)
        pair = compare(
            lambda ids=ids, grad=grad: step(ours, ids, grad, optimizers[0]),
            lambda ids=ids, grad=grad: step(theirs, ids, grad, optimizers[1]),
        )
        assert torch.allclose(ours(ids), theirs(ids)), "the two sides diverged"
        print(pair.line(f"embedding step, {batch} x {length} tokens", TARGET), flush=True)
        size = f"{batch} × {length} tokens"
        what = f"training steps a second of an extended embedding, as a multiple of peft, {size}"
        figure(f"embedding.step{batch}", f"{pair.ratio:.1f}", what)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{THREADS} threads; peak memory of the process {peak:.2f} GiB")


if __name__ == "__main__":
    main()
