"""Contrastive losses over the vectors of queries and documents.

- The distinct documents of a batch are the columns of a score matrix. For each pair, `Candidates`
  contains the column of its document, those of its hard negatives, and columns to ignore: other
  documents that are relevant to the query. A relevant document is therefore never a negative.
- A loss is a small frozen object, called with vectors and `Candidates`; `Matryoshka` wraps any
  loss.
- Losses are summed over the pairs; the training loop divides by their number.
- Gradient caching (Gao et al. 2021, 2101.06983) is activation checkpointing of the whole encoder:
  `embed_in_parts` discards a part's activations and recomputes them, with the same dropout, in the
  backward pass. The loss is computed over the whole batch.
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
    """The positive, negative and ignored documents (columns) of each pair of a batch."""

    positive: Tensor
    """The column of each pair's own document. (pairs,), int64."""
    negatives: Tensor
    """The columns of its explicit (hard) negatives, padded with -1. (pairs, maximum), int64."""
    ignored: Tensor
    """Other documents that are relevant to its query. (pairs, documents), bool."""
    scores: Tensor | None = None
    """A teacher's scores of its document and its negatives, in that order; NaN for a candidate
    without a score, which is left out of the loss. (pairs, 1 + maximum)."""

    @classmethod
    def diagonal(cls, pairs: int, *, device: torch.device | None = None) -> Self:
        """Return the candidates of a batch in which column i is the document of pair i only."""
        return cls(
            positive=torch.arange(pairs, device=device),
            negatives=torch.empty(pairs, 0, dtype=torch.long, device=device),
            ignored=torch.zeros(pairs, pairs, dtype=torch.bool, device=device),
        )

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.positive)

    def to(self, device: torch.device) -> Self:
        """Move the candidates to a device."""
        return type(self)(
            positive=self.positive.to(device),
            negatives=self.negatives.to(device),
            ignored=self.ignored.to(device),
            scores=None if self.scores is None else self.scores.to(device),
        )

    def is_negative(self, documents: int) -> Tensor:
        """Return a mask of each pair's negatives. (pairs, documents), bool.

        They are its explicit negatives or, if it has none, all documents that are not relevant.
        """
        own = F.one_hot(self.positive, documents).bool()
        # An additional column receives the padding.
        given = own.new_zeros(len(self), documents + 1)
        given.scatter_(1, self.negatives.where(self.negatives >= 0, documents), True)
        given = given[:, :documents]
        others = ~(own | self.ignored)
        return torch.where(given.any(1, keepdim=True), given, others) & others


class ContrastiveLoss(Protocol):
    """A loss over vectors. Shape: queries (pairs, dimensions), documents (columns, dimensions)."""

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the loss summed over the pairs, a scalar."""


@dataclass(frozen=True, kw_only=True)
class InfoNCE:
    """Classify a query's document among all of the batch (van den Oord et al. 2018, 1807.03748).

    −log softmax of query·document / temperature over the columns, at the pair's own column. Also
    called multiple negatives ranking (Henderson et al. 2017, 1705.00652). Vectors are expected to
    have norm one.
    """

    temperature: float = 0.05
    """The smaller it is, the more the nearest negatives dominate the loss."""
    bidirectional: bool = False
    """Also classify a document's query among all queries; the loss is the mean of the two."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"a temperature of {self.temperature}", hint="usual are 0.01 to 0.1")

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the loss summed over the pairs, a scalar."""
        scores = (queries @ documents.T / self.temperature).float()
        positive, ignored = candidates.positive, candidates.ignored
        forward = F.cross_entropy(
            scores.masked_fill(ignored, -torch.inf), positive, reduction="sum"
        )
        if not self.bidirectional:
            return forward
        pair = torch.arange(len(scores), device=scores.device)
        # Row i scores the document of pair i against the query of each pair j.
        relevant = ignored.T[positive] | (positive[:, None] == positive)
        relevant[pair, pair] = False
        backward = F.cross_entropy(
            scores.T[positive].masked_fill(relevant, -torch.inf), pair, reduction="sum"
        )
        return (forward + backward) / 2


@dataclass(frozen=True, kw_only=True)
class Triplet:
    """Keep negatives farther away than the document by a margin, in Euclidean distance.

    max(0, |query − document| − |query − negative| + margin), averaged over a pair's negatives: the
    explicit ones, otherwise the rest of the batch (Schroff et al. 2015, 1503.03832).
    """

    margin: float = 0.2

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the loss summed over the pairs, a scalar."""
        return _hinge(-torch.cdist(queries, documents), candidates, self.margin)


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Keep negatives' scores below the document's by a margin.

    max(0, margin − query·document + query·negative), averaged over a pair's negatives: the explicit
    ones, otherwise the rest of the batch.
    """

    margin: float = 0.2

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the loss summed over the pairs, a scalar."""
        return _hinge(queries @ documents.T, candidates, self.margin)


@dataclass(frozen=True, kw_only=True)
class MarginMSE:
    """Match a teacher's margins of document over negatives (Hofstätter et al. 2020, 2010.02666).

    The squared difference between the margin query·document − query·negative and the teacher's
    margin, averaged over a pair's negatives.
    """

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the loss summed over the pairs, a scalar."""
        scores, teacher, real = _own_scores(queries, documents, candidates)
        error = (scores[:, :1] - scores[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
        return _masked_mean(error.square(), real[:, 1:]).sum()


@dataclass(frozen=True, kw_only=True)
class KL:
    """Match a teacher's distribution over document and negatives (Lin et al. 2020, 2010.11386).

    temperature² · KL(softmax(teacher / temperature) ‖ softmax(scores / temperature)).
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"a temperature of {self.temperature}", hint="usual are 0.05 to 5")

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the loss summed over the pairs, a scalar."""
        scores, teacher, real = _own_scores(queries, documents, candidates)
        # The lowest finite number, since −∞ would make 0 · log 0 = NaN.
        lowest = torch.finfo(scores.dtype).min
        student, target = (
            (x / self.temperature).masked_fill(~real, lowest).log_softmax(1)
            for x in (scores, teacher)
        )
        return self.temperature**2 * F.kl_div(student, target, reduction="sum", log_target=True)


@dataclass(frozen=True)
class Matryoshka:
    """The sum of a loss over several prefixes of the vectors (Kusupati et al. 2022, 2205.13147).

    Raises:
        ConfigError: There are no dimensions, or not all are positive.
    """

    loss: ContrastiveLoss
    """The loss at each width."""
    dimensions: tuple[int, ...]
    """Widths of the prefixes; include the full width to train the whole vector as well."""
    normalize: bool = True
    """Normalize each prefix to norm one."""

    def __post_init__(self) -> None:
        if not self.dimensions or min(self.dimensions) < 1:
            raise ConfigError(
                f"dimensions {self.dimensions}",
                hint="numbers of at least 1, such as 384 192 96",
            )

    def __call__(self, queries: Tensor, documents: Tensor, candidates: Candidates) -> Tensor:
        """Return the loss summed over widths and pairs, a scalar."""
        if max(self.dimensions) > queries.shape[1]:
            raise InputError(
                f"{max(self.dimensions)} dimensions, and the vectors have {queries.shape[1]}",
                hint="choose smaller numbers",
            )
        total = queries.new_zeros((), dtype=torch.float32)
        for size in self.dimensions:
            prefixes = [vectors[:, :size] for vectors in (queries, documents)]
            if self.normalize:
                prefixes = [F.normalize(vectors, dim=1) for vectors in prefixes]
            total = total + self.loss(prefixes[0], prefixes[1], candidates)
        return total


def embed_in_parts(embed: Callable[[_Part], Tensor], parts: Iterable[_Part]) -> Tensor:
    """Return the vectors of all parts without storing activations (gradient caching).

    The gradients equal those of embedding the parts one after another, dropout included. Each part
    is computed twice. Shape: (texts of all parts, dimensions).

    Args:
        embed: Computes the vectors of a part's texts.
        parts: The texts, in parts that fit into memory.
    """
    vectors = [checkpoint(embed, part, use_reentrant=False) for part in parts]
    return torch.cat(vectors)


def _hinge(scores: Tensor, candidates: Candidates, margin: float) -> Tensor:
    own = scores.gather(1, candidates.positive[:, None])
    return _masked_mean(
        F.relu(margin - own + scores), candidates.is_negative(scores.shape[1])
    ).sum()


def _masked_mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return each row's mean over the chosen columns; zero if it has none. (rows,)."""
    return (values * chosen).sum(1) / chosen.sum(1).clamp(min=1)


def _own_scores(
    queries: Tensor, documents: Tensor, candidates: Candidates
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores of each pair's own candidates, the teacher's scores, and a validity mask."""
    if candidates.scores is None:
        raise InputError(
            "this loss needs a teacher's scores, and the pairs have none",
            hint="add scores to the pairs, or use InfoNCE",
        )
    columns = torch.cat([candidates.positive[:, None], candidates.negatives], dim=1)
    real = (columns >= 0) & ~candidates.scores.isnan()
    if not bool(real[:, 1:].any()):
        raise InputError(
            "this loss needs explicit negatives, and the pairs have none",
            hint="add or mine negatives, or use InfoNCE",
        )
    scores = torch.einsum("pd,pcd->pc", queries, documents[columns.clamp(min=0)])
    return scores, candidates.scores.masked_fill(~real, 0.0), real
