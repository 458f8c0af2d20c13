"""What a ranking model learns from: a query, some documents, and how well each of them answers it.

Two losses, both of which take soft labels:

- `pointwise`: how probable is it that the document answers the query? Binary cross-entropy; what
  TwinBERT learns from its teacher with (Lu, Jiao & Zhang 2020, 2002.06275).
- `listwise`: which of the documents answers it? Cross-entropy between the labels' shares and the
  softmax of the scores (ListNet, Cao et al. 2007); what matters for an order is only who is above
  whom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.ranking.evaluation.metrics import Judgements, Run

__all__ = [
    "QueryGroup",
    "RankingLoss",
    "check_groups",
    "check_loss",
    "fingerprint_groups",
    "make_groups",
    "ranking_loss",
]

RankingLoss = Literal["pointwise", "listwise"]
"""What is minimised."""


@dataclass(frozen=True)
class QueryGroup:
    """A query and the documents it is learnt with."""

    query: str
    """Its text."""
    documents: tuple[str, ...]
    """The text of each document."""
    labels: tuple[float, ...]
    """How well each answers it, from 0 to 1."""


def make_groups(
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    judgements: Judgements,
    run: Run,
    *,
    negatives: int = 7,
    seed: int = 0,
) -> list[QueryGroup]:
    """Put each relevant document in a group with others that a search found for the same query.

    What the search found and nobody called relevant is taken for irrelevant: hard negatives.

    Args:
        queries: The text of each query.
        documents: The text of each document.
        judgements: Grades; labels are their share of the highest of the query.
        run: What a search found, BM25 for example.
        negatives: How many of the others; drawn anew for each relevant document.
        seed: Decides which.
    """
    draw = np.random.default_rng(seed)
    groups = []
    for query, grades in judgements.items():
        best = max(grades.values())
        wrong = [doc for doc in run.get(query, ()) if grades.get(doc, 0) <= 0]
        for right in (doc for doc, grade in grades.items() if grade > 0):
            others = draw.permutation(len(wrong))[:negatives].tolist()
            names = [right, *(wrong[place] for place in others)]
            groups.append(
                QueryGroup(
                    queries[query],
                    tuple(documents[name] for name in names),
                    (grades[right] / best, *(0.0 for _ in others)),
                )
            )
    return groups


def check_groups(groups: Iterable[QueryGroup]) -> list[QueryGroup]:
    """Refuse groups that cannot be learnt from.

    Raises:
        InputError: There are none; or one has no documents, not one label a document, or a label
            that is no share.
    """
    checked = list(groups)
    if not checked:
        raise InputError("no queries to learn from")
    for number, group in enumerate(checked):
        if not group.documents or len(group.documents) != len(group.labels):
            raise InputError(
                f"group {number} has {len(group.documents)} documents, {len(group.labels)} labels"
            )
        if not all(0 <= label <= 1 for label in group.labels):
            raise InputError(f"group {number} has labels that are not between 0 and 1")
    return checked


def check_loss(loss: str) -> None:
    """Refuse an unknown loss.

    Raises:
        ConfigError: It is none of `RankingLoss`.
    """
    if loss not in get_args(RankingLoss):
        raise ConfigError(f"loss={loss!r}", hint="one of " + ", ".join(get_args(RankingLoss)))


def fingerprint_groups(groups: Iterable[QueryGroup]) -> str:
    """Hash everything that is learnt from: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for group in groups:
        digest.update(repr((group.query, group.documents, group.labels)).encode())
    return digest.hexdigest()


def ranking_loss(loss: RankingLoss, scores: Tensor, labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the loss summed over groups.

    Shape: scores and labels (documents,), those of one group after those of another.

    Args:
        loss: Which.
        scores: Logits.
        labels: From 0 to 1.
        sizes: How many documents each group has.
    """
    own, wanted = torch.split(scores, list(sizes)), torch.split(labels, list(sizes))
    return torch.stack([_LOSSES[loss](*group) for group in zip(own, wanted, strict=True)]).sum()


def _pointwise(scores: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, labels)


def _listwise(scores: Tensor, labels: Tensor) -> Tensor:
    shares = labels / labels.sum().clamp(min=1e-9)
    return -(shares * F.log_softmax(scores, dim=0)).sum()


_LOSSES: dict[RankingLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "pointwise": _pointwise,
    "listwise": _listwise,
}
