"""Losses over the vectors of queries and documents: what pulls pairs together and others apart.

What is notable:

- The documents of a batch are columns, each text once. A pair names its own column, its explicit
  negatives and the columns that count neither way, because they hold other right answers. Nothing
  that is right for a query can therefore be pushed away from it, however often a text comes up.
- A loss is a small frozen object, called with vectors and `Candidates`; `Matryoshka` wraps any.
- Losses are sums over the pairs, as the training loop wants them.
- Gradient caching (Gao et al. 2021, 2101.06983) is activation checkpointing of the whole encoder:
  `embed_in_parts` forgets what a part computed and computes it again, with the same dropout, when
  the gradient of its vectors is there. The loss itself sees the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from idiolect.errors import ConfigError, InputError

__all__ = [
    "KL",
    "Candidates",
    "ContrastiveLoss",
    "InfoNCE",
    "Margin",
    "MarginMSE",
    "Matryoshka",
    "Triplet",
    "embed_in_parts",
]

_Part = TypeVar("_Part")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Which columns of a batch are what to each of its pairs."""

    positive: Tensor
    """The column of each pair's own document. (pairs,), int64."""
    negatives: Tensor
    """The columns of its explicit negatives; -1 where it has fewer. (pairs, most), int64."""
    ignored: Tensor
    """Other documents that are right for its query as well. (pairs, documents), bool."""
    scores: Tensor | None = None
    """A teacher's scores of its document and its negatives, in that order; not a number where the
    teacher has not seen one, which then is not learnt from. (pairs, 1 + most)."""

    @classmethod
    def diagonal(cls, pairs: int, *, device: torch.device | None = None) -> Self:
        """Return those of a batch in which the document of pair i is column i, and that is all."""
        return cls(
            positive=torch.arange(pairs, device=device),
            negatives=torch.empty(pairs, 0, dtype=torch.long, device=device),
            ignored=torch.zeros(pairs, pairs, dtype=torch.bool, device=device),
        )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.positive)

    def to(self, device: torch.device) -> Self:
        """Move them to a device."""
        return type(self)(
            positive=self.positive.to(device),
            negatives=self.negatives.to(device),
            ignored=self.ignored.to(device),
            scores=None if self.scores is None else self.scores.to(device),
        )

    def is_negative(self, documents: int) -> Tensor:
        """Say which columns a pair is told apart from. (pairs, documents), bool.

        Its explicit negatives where there are any, else all that are not right for it.
        """
        own = F.one_hot(self.positive, documents).bool()
        # One column more, for the negatives that are missing.
        given = own.new_zeros(len(self), documents + 1)
        given.scatter_(1, self.negatives.where(self.negatives >= 0, documents), True)
        given = given[:, :documents]
        others = ~(own | self.ignored)
        return torch.where(given.any(1, keepdim=True), given, others) & others


class ContrastiveLoss(Protocol):
    """What is minimised. Shape: queries (pairs, dimensions), documents (columns, dimensions)."""

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the sum over the pairs, a scalar."""


@dataclass(frozen=True, kw_only=True)
class InfoNCE:
    """Tell a query's document from all others of the batch (van den Oord et al. 2018, 1807.03748).

    −log softmax over the columns of query·document / temperature, at the pair's own; also called
    multiple negatives ranking (Henderson et al. 2017, 1705.00652). Vectors of length one are
    expected.
    """

    temperature: float = 0.05
    """Small: only the nearest negatives count."""
    both_ways: bool = False
    """Also tell a document's query from the other queries; the mean of the two losses."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"a temperature of {self.temperature}", hint="usual are 0.01 to 0.1")

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the sum over the pairs, a scalar."""
        scores = (queries @ documents.T / self.temperature).float()
        positive, ignored = candidates.positive, candidates.ignored
        there = F.cross_entropy(scores.masked_fill(ignored, -torch.inf), positive, reduction="sum")
        if not self.both_ways:
            return there
        pair = torch.arange(len(scores), device=scores.device)
        # Row i: the document of pair i against the query of each pair j.
        right = ignored.T[positive] | (positive[:, None] == positive)
        right[pair, pair] = False
        back = F.cross_entropy(
            scores.T[positive].masked_fill(right, -torch.inf), pair, reduction="sum"
        )
        return (there + back) / 2


@dataclass(frozen=True, kw_only=True)
class Triplet:
    """Keep negatives farther than the document by a margin, in Euclidean distance.

    max(0, |query − document| − |query − negative| + margin), the mean over a pair's negatives
    (Schroff et al. 2015, 1503.03832): the explicit ones, or else the rest of the batch.
    """

    margin: float = 0.2

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the sum over the pairs, a scalar."""
        return _hinge(-torch.cdist(queries, documents), candidates, self.margin)


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Keep negatives' scores below the document's by a margin.

    max(0, margin − query·document + query·negative), the mean over a pair's negatives: the explicit
    ones, or else the rest of the batch.
    """

    margin: float = 0.2

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the sum over the pairs, a scalar."""
        return _hinge(queries @ documents.T, candidates, self.margin)


@dataclass(frozen=True, kw_only=True)
class MarginMSE:
    """Copy a teacher's margins between document and negatives (Hofstätter et al. 2020, 2010.02666).

    The squared difference of (query·document − query·negative) and the same of the teacher's
    scores, the mean over a pair's negatives.
    """

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the sum over the pairs, a scalar."""
        scores, teacher, real = _own_scores(queries, documents, candidates)
        error = (scores[:, :1] - scores[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
        return _mean_of(error.square(), real[:, 1:]).sum()


@dataclass(frozen=True, kw_only=True)
class KL:
    """Copy how a teacher divides its belief among document and negatives (Lin et al. 2020).

    temperature² · KL(softmax(teacher / temperature) ‖ softmax(scores / temperature)), 2010.11386.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"a temperature of {self.temperature}", hint="usual are 0.05 to 5")

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the sum over the pairs, a scalar."""
        scores, teacher, real = _own_scores(queries, documents, candidates)
        # The lowest number and not −∞, of which 0 · log 0 would make no number.
        lowest = torch.finfo(scores.dtype).min
        student, wanted = (
            (x / self.temperature).masked_fill(~real, lowest).log_softmax(1)
            for x in (scores, teacher)
        )
        return self.temperature**2 * F.kl_div(student, wanted, reduction="sum", log_target=True)


@dataclass(frozen=True)
class Matryoshka:
    """Any loss, on the first d numbers of the vectors, for each d (Kusupati et al. 2022).

    The losses are added up. 2205.13147.

    Raises:
        ConfigError: No dimensions, or not all are positive.
    """

    loss: ContrastiveLoss
    """What is minimised at each."""
    dimensions: tuple[int, ...]
    """How many numbers are kept; the whole vector is trained where its size is among them."""
    normalise: bool = True
    """Whether vectors have length one."""

    def __post_init__(self) -> None:
        if not self.dimensions or min(self.dimensions) < 1:
            raise ConfigError(
                f"dimensions {self.dimensions}", hint="some numbers of at least 1, as 384 192 96"
            )

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the sum over dimensions and pairs, a scalar."""
        if max(self.dimensions) > queries.shape[1]:
            raise InputError(
                f"{max(self.dimensions)} dimensions of vectors of {queries.shape[1]}",
                hint="choose smaller ones",
            )
        total = queries.new_zeros((), dtype=torch.float32)
        for size in self.dimensions:
            short = [vectors[:, :size] for vectors in (queries, documents)]
            if self.normalise:
                short = [F.normalize(vectors, dim=1) for vectors in short]
            total = total + self.loss(short[0], short[1], candidates)
        return total


def embed_in_parts(embed: Callable[[_Part], Tensor], parts: Iterable[_Part]) -> Tensor:
    """Return the vectors of all parts, keeping the activations of none.

    The gradients are those of embedding the parts one after another, dropout included; each part is
    computed twice. Shape: (texts of all parts, dimensions).

    Args:
        embed: Makes vectors of the texts of a part.
        parts: Texts, as many at once as memory allows.
    """
    vectors = [checkpoint(embed, part, use_reentrant=False) for part in parts]
    return torch.cat(vectors)


def _hinge(scores: Tensor, candidates: Candidates, margin: float) -> Tensor:
    own = scores.gather(1, candidates.positive[:, None])
    return _mean_of(F.relu(margin - own + scores), candidates.is_negative(scores.shape[1])).sum()


def _mean_of(values: Tensor, wanted: Tensor) -> Tensor:
    """Return each row's mean over the wanted columns, zero where none is. (rows,)."""
    return (values * wanted).sum(1) / wanted.sum(1).clamp(min=1)


def _own_scores(
    queries: Tensor, documents: Tensor, candidates: Candidates
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores of a pair's own candidates, the teacher's, and which there are."""
    if candidates.scores is None:
        raise InputError("this loss copies a teacher, and the pairs have no scores")
    columns = torch.cat([candidates.positive[:, None], candidates.negatives], dim=1)
    real = (columns >= 0) & ~candidates.scores.isnan()
    if not bool(real[:, 1:].any()):
        raise InputError("this loss compares with explicit negatives, and there are none")
    scores = torch.einsum("pd,pcd->pc", queries, documents[columns.clamp(min=0)])
    return scores, candidates.scores.masked_fill(~real, 0.0), real
