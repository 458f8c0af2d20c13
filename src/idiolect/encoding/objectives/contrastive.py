"""What `tune` minimises: a loss over the vectors of all texts of a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.mining import Miner
from idiolect.encoding.objectives.pair_batches import EpochSample, PairBatch
from idiolect.encoding.pairs import PairTable
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.nn.transformer import Transformer
from idiolect.training.distributed import Workers
from idiolect.training.objectives.contrastive_losses import ContrastiveLoss, embed_in_parts

__all__ = ["ContrastiveObjective", "embed_shared", "share_loss"]


class ContrastiveObjective:
    """Queries and documents, and how their vectors should stand to each other.

    Args:
        encoder: What is trained.
        table: The pairs.
        loss: What is minimised.
        miner: Finds more negatives for each round.
        at_once: Texts whose activations are held; gradients are cached where there are more.
        workers: The processes, each of which embeds its share of the texts.
    """

    predicts_text = False
    """The loss is not that of a text."""

    def __init__(
        self,
        encoder: Encoder,
        table: PairTable,
        loss: ContrastiveLoss,
        *,
        miner: Miner | None = None,
        at_once: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.encoder, self.table, self.goal, self.miner = encoder, table, loss, miner
        self.at_once, self.workers = at_once, workers or Workers()
        self.counts = EncodingCounts()
        """What was cut of the texts that were read."""

    def prepare(self, rows: EpochSample) -> PairBatch:
        """Lay out pairs and their negatives."""
        mined = None if self.miner is None else self.miner.negatives(rows.round)[rows.sources]
        return PairBatch.of(
            self.table, rows.sources, self.encoder.reader, mined=mined, counts=self.counts
        )

    def loss(self, network: Transformer, batch: PairBatch) -> Tensor:
        """Return the loss summed over the pairs."""
        queries, documents = (
            embed_shared(self.encoder, rows, self.workers, at_once=self.at_once)
            for rows in (batch.queries, batch.documents)
        )
        # Scores are divided by a small temperature, which bfloat16 is too coarse for.
        with torch.autocast(queries.device.type, enabled=False):
            loss = self.goal(queries[batch.query], documents, batch.candidates)
        return share_loss(loss, self.workers)


def embed_shared(
    encoder: Encoder,
    rows: Sequence[Sequence[int]],
    workers: Workers,
    *,
    at_once: int | None = None,
) -> Tensor:
    """Return the vectors of all rows, each process having embedded its share of them.

    Only a process's own vectors carry gradients. Where every process computes the whole loss of
    them, the processes' gradients add up to those of one process that embeds all.

    Shape: (rows, dimensions), float32.
    """
    own = workers.share(len(rows))
    mine = _embed(encoder, rows[own], at_once)
    if workers.count == 1:
        return mine
    sizes = [Workers(rank, workers.count).share(len(rows)) for rank in range(workers.count)]
    most = max(size.stop - size.start for size in sizes)
    padded = F.pad(mine.detach(), (0, 0, 0, most - len(mine)))
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded)
    parts = [one[: size.stop - size.start] for one, size in zip(gathered, sizes, strict=True)]
    parts[workers.rank] = mine
    return torch.cat(parts)


def share_loss(loss: Tensor, workers: Workers) -> Tensor:
    """Return a loss that every process has computed whole so that their values add up to it once.

    Its gradient stays whole.
    """
    return loss - (1 - 1 / workers.count) * loss.detach()


def _embed(encoder: Encoder, rows: Sequence[Sequence[int]], at_once: int | None) -> Tensor:
    if at_once is None or len(rows) <= at_once:
        return encoder.embed_rows(rows).float()
    # Those of like length together, so that little is padding.
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    parts = [
        [rows[i] for i in order[start : start + at_once]] for start in range(0, len(rows), at_once)
    ]
    place = torch.empty(len(rows), dtype=torch.long)
    place[order] = torch.arange(len(rows))
    vectors = embed_in_parts(encoder.embed_rows, parts)
    return vectors.float()[place.to(vectors.device)]
