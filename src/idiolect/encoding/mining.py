"""Hard negatives: documents that the encoder ranks highly although they are not relevant.

- A document that scores nearly as high as the known positive is probably an unlabeled positive, so
  it is excluded (positive-aware mining, Moreira et al. 2024, "NV-Retriever", 2407.15831). Other
  known positives of the query are excluded too.
- The documents are encoded once, before training. Each epoch encodes only the queries, which are
  few and short, with the current weights, and searches the same document vectors. (ANCE, Xiong et
  al. 2020, 2007.00808, also searches vectors that were computed with older weights.)
- The candidates of each epoch are saved, so a resumed run trains on the same ones.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import PairTable
from idiolect.encoding.vectors import Vectors
from idiolect.errors import ConfigError
from idiolect.text.files import write_atomic
from idiolect.training.distributed import Workers

__all__ = ["Miner", "Mining", "mine"]

_ROWS, _COLUMNS = 256, 65_536
"""Pairs and documents scored at a time: at most 64 MiB of scores."""
_DOCUMENTS_PER_WRITE = 1024
"""Documents whose vectors are written together; an interrupted run loses at most this many."""


@dataclass(frozen=True, kw_only=True)
class Mining:
    """Settings of negative mining.

    Raises:
        ConfigError: A value is out of its range.
    """

    count: int = 1
    """Negatives per pair, sampled again in each epoch."""
    pool: int = 30
    """Number of hardest candidates to draw from."""
    margin: float = 0.95
    """Documents above this share of the positive's score are excluded as possible positives."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.pool:
            raise ConfigError(
                f"count is {self.count} and pool is {self.pool}",
                hint="choose a count from 1 to the size of the pool",
            )
        if not 0 < self.margin <= 1:
            raise ConfigError(f"margin is {self.margin}", hint="it must be between 0 and 1")


def mine(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    table: PairTable,
    *,
    pool: int = 30,
    margin: float = 0.95,
) -> NDArray[np.int64]:
    """Find the hardest negatives of each pair, hardest first.

    Shape: queries (queries, dimensions), documents (documents, dimensions), result (pairs, pool).

    Args:
        queries: Query vectors, compared by inner product.
        documents: Document vectors, read in blocks; they may be memory-mapped.
        table: The pairs, which determine the positives of each query.
        pool: Number of negatives per pair.
        margin: See `Mining`.

    Returns:
        Document indices, padded with -1.
    """
    found = np.full((len(table), pool), -1, dtype=np.int64)
    for start in range(0, len(table), _ROWS):
        pairs = table.pairs[start : start + _ROWS]
        query_vectors = torch.from_numpy(queries[[query for query, _ in pairs]])
        positives = torch.from_numpy(np.array(documents[[positive for _, positive in pairs]]))
        own = (query_vectors * positives).sum(1, keepdim=True)
        limit = own - (1 - margin) * own.abs()
        best = torch.full((len(pairs), pool), -torch.inf)
        numbers = torch.full((len(pairs), pool), -1)
        for first in range(0, len(documents), _COLUMNS):
            block = torch.from_numpy(np.array(documents[first : first + _COLUMNS]))
            scores = query_vectors @ block.T
            scores.masked_fill_(scores > limit, -torch.inf)
            for row, (query, _) in enumerate(pairs):
                known = [d - first for d in table.right[query] if 0 <= d - first < len(block)]
                scores[row, known] = -torch.inf
            both = torch.cat([best, scores], dim=1)
            ids = torch.arange(first, first + len(block)).expand(len(pairs), -1)
            best, order = both.topk(pool)
            numbers = torch.cat([numbers, ids], dim=1).gather(1, order)
        found[start : start + len(pairs)] = numbers.masked_fill(best == -torch.inf, -1).numpy()
    return found


class Miner:
    """Mine the negatives of each epoch of a run.

    Args:
        encoder: The encoder in training.
        table: The pairs; all their documents are candidates.
        mining: Settings.
        folder: Directory for document vectors and the candidates of each epoch.
        seed: Random seed of the draw.
        workers: The processes; the first one writes.
    """

    def __init__(
        self,
        encoder: Encoder,
        table: PairTable,
        mining: Mining,
        folder: Path,
        *,
        seed: int = 0,
        workers: Workers | None = None,
    ) -> None:
        self.encoder, self.table, self.mining = encoder, table, mining
        self.folder, self.seed, self._workers = folder, seed, workers or Workers()
        path = folder / "documents.npy"
        if self._workers.is_first:
            encoder.encode_to(
                path,
                table.documents,
                prompt_name="document",
                block=_DOCUMENTS_PER_WRITE,
                progress=True,
            )
        self._workers.wait()
        self._documents = Vectors.open(path).array
        self._drawn: tuple[int, NDArray[np.int64]] | None = None

    def negatives(self, number: int) -> NDArray[np.int64]:
        """Return the negatives of each pair in an epoch. Shape: (pairs, count), padded with -1.

        The first call for an epoch mines with the encoder's current weights.
        """
        if self._drawn is None or self._drawn[0] != number:
            self._drawn = number, self._draw(number)
        return self._drawn[1]

    def _draw(self, number: int) -> NDArray[np.int64]:
        pool = self._pool(number)
        keys = np.random.default_rng([self.seed, number]).random(pool.shape)
        keys[pool < 0] = 2.0  # padding is sorted last
        order = np.argsort(keys, axis=1)[:, : self.mining.count]
        drawn: NDArray[np.int64] = np.take_along_axis(pool, order, axis=1)
        return drawn

    def _pool(self, number: int) -> NDArray[np.int64]:
        path = self.folder / f"round-{number:04}.npy"
        if path.exists():
            saved: NDArray[np.int64] = np.load(path, allow_pickle=False)
            return saved
        queries = self.encoder.encode(self.table.queries, prompt_name="query")
        pool = mine(
            queries,
            self._documents,
            self.table,
            pool=self.mining.pool,
            margin=self.mining.margin,
        )
        self._workers.wait()  # All processes check for the file before the first one writes it.
        if self._workers.is_first:
            data = io.BytesIO()
            np.save(data, pool, allow_pickle=False)
            write_atomic(path, data.getvalue())
        return pool
