"""Training data and losses of ranking models: queries with documents and relevance labels.

Both losses take soft labels:

- `pointwise`: binary cross-entropy of each document, as in the distillation of TwinBERT (Lu, Jiao &
  Zhang 2020, 2002.06275).
- `listwise`: cross-entropy between the normalized labels and the softmax of the scores (ListNet,
  Cao et al. 2007). It depends only on score differences within a query.
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
from idiolect.ranking.evaluation.metrics import Qrels, Run, ranked
from idiolect.text.arguments import iterate, wrong_type

__all__ = [
    "QueryGroup",
    "RankingLoss",
    "candidate_groups",
    "check_groups",
    "check_loss",
    "fingerprint_groups",
    "make_groups",
    "ranking_loss",
]

RankingLoss = Literal["pointwise", "listwise"]
"""Name of a ranking loss."""


@dataclass(frozen=True)
class QueryGroup:
    """A query with documents and their labels."""

    query: str
    """The text of the query."""
    documents: tuple[str, ...]
    """The text of each document."""
    labels: tuple[float, ...]
    """The relevance of each document, from 0 to 1."""


def make_groups(
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    qrels: Qrels,
    run: Run,
    *,
    negatives: int = 7,
    seed: int = 0,
) -> list[QueryGroup]:
    """Group each relevant document with hard negatives: candidates not judged relevant.

    Args:
        queries: The text of each query.
        documents: The text of each document.
        qrels: Grades. A label is a grade divided by the highest grade of its query.
        run: Candidates, such as those of BM25.
        negatives: Number of negatives per group, drawn separately for each relevant document.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    groups = []
    for query, grades in qrels.items():
        best = max(grades.values(), default=0)
        irrelevant = [doc for doc in run.get(query, ()) if grades.get(doc, 0) <= 0]
        for relevant in (doc for doc, grade in grades.items() if grade > 0):
            drawn = rng.permutation(len(irrelevant))[:negatives].tolist()
            names = [relevant, *(irrelevant[index] for index in drawn)]
            groups.append(
                QueryGroup(
                    queries[query],
                    tuple(documents[name] for name in names),
                    (grades[relevant] / best, *(0.0 for _ in drawn)),
                )
            )
    return groups


def candidate_groups(
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    run: Run,
    *,
    negatives: int = 7,
    seed: int = 0,
) -> list[QueryGroup]:
    """Group the best candidate of each query with random other candidates, without judgements.

    All labels are 0: a teacher replaces them, see `TwoTower.distill`.

    Args:
        queries: The text of each query.
        documents: The text of each document.
        run: Candidates. Queries with fewer than two candidates are left out.
        negatives: Number of other candidates in each group.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    groups = []
    for query, found in run.items():
        first, *others = ranked(found) or [""]
        drawn = rng.permutation(len(others))[:negatives].tolist()
        names = [first, *(others[index] for index in drawn)]
        if len(names) > 1:
            texts = tuple(documents[name] for name in names)
            groups.append(QueryGroup(queries[query], texts, (0.0,) * len(names)))
    return groups


def check_groups(groups: Iterable[QueryGroup]) -> list[QueryGroup]:
    """Check training groups and return them as a list.

    Raises:
        InputError: There are no groups, or a group has no documents, a different number of labels
            and documents, or a label outside 0 to 1.
    """
    checked = list(iterate(groups, "groups", "a list of query groups"))
    for number, group in enumerate(checked, start=1):
        if not isinstance(group, QueryGroup):
            raise wrong_type(group, f"group {number}", "a QueryGroup")
    if not checked:
        raise InputError("no queries to train on", hint="pass at least one group")
    for number, group in enumerate(checked):
        if not group.documents or len(group.documents) != len(group.labels):
            raise InputError(
                f"group {number} has {len(group.documents)} documents, but {len(group.labels)} "
                "labels",
                hint="give each document one label",
            )
        if not all(0 <= label <= 1 for label in group.labels):
            raise InputError(
                f"group {number} has labels that are not between 0 and 1", hint="rescale the labels"
            )
    return checked


def check_loss(loss: str) -> None:
    """Check the name of a loss.

    Raises:
        ConfigError: The loss is unknown.
    """
    if loss not in get_args(RankingLoss):
        raise ConfigError(f"loss={loss!r}", hint="one of " + ", ".join(get_args(RankingLoss)))


def fingerprint_groups(groups: Iterable[QueryGroup]) -> str:
    """Hash the groups: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for group in groups:
        digest.update(repr((group.query, group.documents, group.labels)).encode())
    return digest.hexdigest()


def ranking_loss(loss: RankingLoss, scores: Tensor, labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the loss summed over groups.

    Shape: scores and labels (documents,), the groups one after another.

    Args:
        loss: Name of the loss.
        scores: Logits.
        labels: From 0 to 1.
        sizes: Number of documents of each group.
    """
    groups = zip(torch.split(scores, list(sizes)), torch.split(labels, list(sizes)), strict=True)
    return torch.stack([_LOSSES[loss](*group) for group in groups]).sum()


def _pointwise(scores: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores, labels)


def _listwise(scores: Tensor, labels: Tensor) -> Tensor:
    shares = labels / labels.sum().clamp(min=1e-9)
    return -(shares * F.log_softmax(scores, dim=0)).sum()


_LOSSES: dict[RankingLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "pointwise": _pointwise,
    "listwise": _listwise,
}
