"""Hard negatives: documents the encoder takes for right answers, though they are not.

What is notable:

- What scores nearly as high as the known answer is taken for an answer that nobody has marked, and
  left out (positive-aware mining, Moreira et al. 2024, "NV-Retriever", 2407.15831); so is every
  other known answer of the query.
- The documents are encoded once, before training, into a file that survives. Each round encodes
  the queries alone, which are few and short, with the weights of that moment, and looks among the
  same document vectors for what misleads them now (as Xiong et al. 2020, "ANCE", 2007.00808, who
  also search among vectors of older weights).
- A round's candidates are kept in a file, so a run that is resumed trains on the same ones.
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
"""Pairs and documents that are compared at once: at most 64 MiB of scores."""
_KEPT_AT_ONCE = 1024
"""Documents whose vectors go to the disk together: as many are lost when a run is ended."""


@dataclass(frozen=True, kw_only=True)
class Mining:
    """How negatives are found.

    Raises:
        ConfigError: A value is out of its range.
    """

    count: int = 1
    """Negatives a pair is given, each round others."""
    pool: int = 30
    """How many of the hardest they are drawn from."""
    margin: float = 0.95
    """A document with more than this share of the answer's score may be an answer itself."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.pool:
            raise ConfigError(
                f"{self.count} negatives out of a pool of {self.pool}", hint="at least 1 of as many"
            )
        if not 0 < self.margin <= 1:
            raise ConfigError(f"margin is {self.margin}", hint="it is between 0 and 1")


def mine(
    queries: NDArray[np.float32],
    documents: NDArray[np.float32],
    table: PairTable,
    *,
    pool: int = 30,
    margin: float = 0.95,
) -> NDArray[np.int64]:
    """Find the hardest negatives of each pair, the hardest first.

    Shape: queries (queries, dimensions), documents (documents, dimensions), result (pairs, pool).

    Args:
        queries: Their vectors, compared by inner product.
        documents: Their vectors; they may be mapped from a file, and are read in blocks.
        table: Says which document is right for which query.
        pool: How many.
        margin: See `Mining`.

    Returns:
        Numbers of documents; -1 where there are not so many.
    """
    found = np.full((len(table), pool), -1, dtype=np.int64)
    for start in range(0, len(table), _ROWS):
        pairs = table.pairs[start : start + _ROWS]
        wanted = torch.from_numpy(queries[[query for query, _ in pairs]])
        answers = torch.from_numpy(np.array(documents[[answer for _, answer in pairs]]))
        own = (wanted * answers).sum(1, keepdim=True)
        limit = own - (1 - margin) * own.abs()
        best = torch.full((len(pairs), pool), -torch.inf)
        places = torch.full((len(pairs), pool), -1)
        for first in range(0, len(documents), _COLUMNS):
            block = torch.from_numpy(np.array(documents[first : first + _COLUMNS]))
            scores = wanted @ block.T
            scores.masked_fill_(scores > limit, -torch.inf)
            for row, (query, _) in enumerate(pairs):
                known = [d - first for d in table.right[query] if 0 <= d - first < len(block)]
                scores[row, known] = -torch.inf
            both = torch.cat([best, scores], dim=1)
            ids = torch.arange(first, first + len(block)).expand(len(pairs), -1)
            best, order = both.topk(pool)
            places = torch.cat([places, ids], dim=1).gather(1, order)
        found[start : start + len(pairs)] = places.masked_fill(best == -torch.inf, -1).numpy()
    return found


class Miner:
    """Negatives for each round of a run.

    Args:
        encoder: What is trained.
        table: The pairs; negatives are found among all its documents.
        mining: How.
        folder: Where the documents' vectors and each round's candidates are kept.
        seed: Decides the draw.
        workers: The processes; the first of them writes.
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
                path, table.documents, kind="document", block=_KEPT_AT_ONCE, progress=True
            )
        self._workers.wait()
        self._documents = Vectors.open(path).array
        self._drawn: tuple[int, NDArray[np.int64]] | None = None

    def negatives(self, number: int) -> NDArray[np.int64]:
        """Return the negatives of each pair in a round. Shape: (pairs, count), -1 for none.

        The first time a round is asked for, it is mined with the encoder's weights as they are.
        """
        if self._drawn is None or self._drawn[0] != number:
            self._drawn = number, self._draw(number)
        return self._drawn[1]

    def _draw(self, number: int) -> NDArray[np.int64]:
        pool = self._pool(number)
        chance = np.random.default_rng([self.seed, number]).random(pool.shape)
        chance[pool < 0] = 2.0  # those come last
        order = np.argsort(chance, axis=1)[:, : self.mining.count]
        drawn: NDArray[np.int64] = np.take_along_axis(pool, order, axis=1)
        return drawn

    def _pool(self, number: int) -> NDArray[np.int64]:
        path = self.folder / f"round-{number:04}.npy"
        if path.exists():
            known: NDArray[np.int64] = np.load(path, allow_pickle=False)
            return known
        queries = self.encoder.encode(self.table.queries, kind="query")
        pool = mine(
            queries,
            self._documents,
            self.table,
            pool=self.mining.pool,
            margin=self.mining.margin,
        )
        self._workers.wait()  # Nobody finds the file while others look for it.
        if self._workers.is_first:
            data = io.BytesIO()
            np.save(data, pool, allow_pickle=False)
            write_atomic(path, data.getvalue())
        return pool
