"""Re-ranking, groups, and the losses by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from idiolect.errors import InputError, VerificationError
from idiolect.ranking.groups import make_groups, ranking_loss
from idiolect.ranking.rerank import rerank

RUN = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}, "empty": {"a": 1.0}, "none": {}}
QUERIES = {"q": "query", "empty": " ", "none": "nothing"}
DOCUMENTS = {"a": "one", "b": "three", "c": "sixsix"}


def _by_length(pairs: list[tuple[str, str]]) -> np.ndarray:
    return np.array([len(document) for _, document in pairs], np.float32)


def test_first_documents_in_a_new_order() -> None:
    assert rerank(RUN, QUERIES, DOCUMENTS, _by_length, top_k=2) == {"q": {"a": 3.0, "b": 5.0}}


def test_what_cannot_be_ranked() -> None:
    with pytest.raises(InputError, match="1 ids of the run have no text: c"):
        rerank(RUN, QUERIES, {"a": "x", "b": "y"}, _by_length)
    with pytest.raises(VerificationError, match="document 'a' for query 'q' is not finite"):
        rerank(RUN, QUERIES, DOCUMENTS, lambda pairs: np.full(len(pairs), np.nan, np.float32))


def test_losses_by_hand() -> None:
    scores, labels = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.25])

    def cross(score: float, label: float) -> float:
        p = 1 / (1 + math.exp(-score))
        return -label * math.log(p) - (1 - label) * math.log(1 - p)

    pointwise = (cross(2, 1) + cross(0, 0)) / 2 + cross(1, 0.25)
    assert float(ranking_loss("pointwise", scores, labels, [2, 1])) == pytest.approx(pointwise)
    total = math.exp(2) + 1 + math.exp(1)
    listwise = -(0.8 * (2 - math.log(total)) + 0.2 * (1 - math.log(total)))
    assert float(ranking_loss("listwise", scores, labels, [3])) == pytest.approx(listwise)


def test_hard_negatives_are_what_a_search_found() -> None:
    judgements = {"q": {"a": 2.0, "b": 1.0, "c": 0.0}}
    documents = {**DOCUMENTS, "d": "4", "e": "5"}
    run = {"q": {"b": 9.0, "d": 8.0, "c": 7.0, "e": 6.0}}
    first, second = make_groups(QUERIES, documents, judgements, run, negatives=2)
    assert (first.documents[0], first.labels) == ("one", (1.0, 0.0, 0.0))
    assert (second.documents[0], second.labels) == ("three", (0.5, 0.0, 0.0))
    for group in (first, second):
        assert set(group.documents[1:]) <= {"4", "5", "sixsix"}
        assert len(set(group.documents)) == 3
