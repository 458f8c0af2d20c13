"""The objective of `tune` on pairs: a contrastive loss with in-batch negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.mining import Miner
from idiolect.encoding.objectives.pair_batches import PairBatch, PairReader
from idiolect.encoding.pairs import PairTable
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.nn.network import Network
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.distributed import Workers
from idiolect.training.objectives.contrastive_losses import (
    Candidates,
    ContrastiveLoss,
    embed_in_parts,
)
from idiolect.training.objectives.objective import WholeBatchObjective

__all__ = ["ContrastiveObjective", "embed_shared", "loss_of_pairs"]


class ContrastiveObjective(WholeBatchObjective):
    """A loss over the vectors of queries and documents.

    Args:
        encoder: The encoder to train.
        table: The pairs.
        loss: The loss to minimize.
        miner: Mines additional negatives for each epoch.
        micro_batch_size: Maximum number of texts whose activations are held in memory. Larger
            batches use gradient caching: activations are computed twice, with the same result.
        workers: The distributed processes, each of which encodes its share of the texts.
    """

    def __init__(
        self,
        encoder: Encoder,
        table: PairTable,
        loss: ContrastiveLoss,
        *,
        miner: Miner | None = None,
        micro_batch_size: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        self.encoder, self.table, self.criterion, self.miner = encoder, table, loss, miner
        self.micro_batch_size, self.workers = micro_batch_size, workers or Workers()
        self._reader = PairReader(table, encoder.reader)

    @property
    def counts(self) -> EncodingCounts:
        """Numbers of texts read and truncated."""
        return self._reader.counts

    def prepare(self, rows: EpochSample) -> PairBatch:
        """Make a batch of pairs and their negatives."""
        mined = None if self.miner is None else self.miner.negatives(rows.epoch)[rows.sources]
        return PairBatch.of(self.table, rows.sources, self._reader, mined=mined)

    def loss(self, network: Network, batch: PairBatch) -> Tensor:
        """Return the loss summed over the pairs."""
        queries, documents = _embed_both(
            self.encoder,
            batch.queries,
            batch.documents,
            self.workers,
            micro_batch_size=self.micro_batch_size,
        )
        # Scores are divided by a small temperature, for which bfloat16 is too coarse.
        with torch.autocast(queries.device.type, enabled=False):
            return self.criterion(queries[batch.query], documents, batch.candidates)


def loss_of_pairs(
    encoder: Encoder,
    criterion: ContrastiveLoss,
    queries: Sequence[Sequence[int]],
    documents: Sequence[Sequence[int]],
    workers: Workers,
    *,
    micro_batch_size: int | None = None,
    ignored: Tensor | None = None,
) -> Tensor:
    """Return the loss of a batch in which document `i` is the only positive of query `i`.

    Args:
        encoder: The encoder to train.
        criterion: The loss.
        queries: The ids of each query.
        documents: The ids of each document.
        workers: The processes, each of which encodes its share.
        micro_batch_size: As in `ContrastiveObjective`.
        ignored: True where a document is not used as a negative of a query. Shape: (queries,
            documents), bool.
    """
    first, second = _embed_both(
        encoder, queries, documents, workers, micro_batch_size=micro_batch_size
    )
    pairs = Candidates.diagonal(len(queries), device=first.device)
    if ignored is not None:
        pairs = replace(pairs, ignored=ignored.to(first.device))
    with torch.autocast(first.device.type, enabled=False):  # as in `ContrastiveObjective`
        return criterion(first, second, pairs)


def _embed_both(
    encoder: Encoder,
    queries: Sequence[Sequence[int]],
    documents: Sequence[Sequence[int]],
    workers: Workers,
    *,
    micro_batch_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Return the vectors of queries and of documents.

    A network without layers encodes both together, so that each embedding row is looked up and
    updated once. Other networks encode them separately: together, queries would be padded to the
    length of documents.
    """
    together = [[*queries, *documents]]
    parts = together if encoder.model.network.context_free else [queries, documents]
    vectors = torch.cat(
        [embed_shared(encoder, rows, workers, micro_batch_size=micro_batch_size) for rows in parts]
    )
    return vectors[: len(queries)], vectors[len(queries) :]


def embed_shared(
    encoder: Encoder,
    rows: Sequence[Sequence[int]],
    workers: Workers,
    *,
    micro_batch_size: int | None = None,
) -> Tensor:
    """Return the vectors of all rows; each process encodes its share.

    Only a process's own vectors carry gradients. When every process computes the whole loss, the
    gradients of all processes add up to those of one process that encodes everything.

    Shape: (rows, dimensions), float32.
    """
    own = workers.share(len(rows))
    mine = _embed(encoder, rows[own], micro_batch_size)
    if workers.count == 1:
        return mine
    sizes = [Workers(rank, workers.count).share(len(rows)) for rank in range(workers.count)]
    longest = max(size.stop - size.start for size in sizes)
    padded = F.pad(mine.detach(), (0, 0, 0, longest - len(mine)))
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded)
    parts = [one[: size.stop - size.start] for one, size in zip(gathered, sizes, strict=True)]
    parts[workers.rank] = mine
    return torch.cat(parts)


def _embed(encoder: Encoder, rows: Sequence[Sequence[int]], micro_batch_size: int | None) -> Tensor:
    if micro_batch_size is None or len(rows) <= micro_batch_size:
        return encoder.embed_rows(rows).float()
    # Sorted by length, so that a micro-batch has little padding.
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    parts = [
        [rows[i] for i in order[start : start + micro_batch_size]]
        for start in range(0, len(rows), micro_batch_size)
    ]
    place = torch.empty(len(rows), dtype=torch.long)
    place[order] = torch.arange(len(rows))
    vectors = embed_in_parts(encoder.embed_rows, parts)
    return vectors.float()[place.to(vectors.device)]
