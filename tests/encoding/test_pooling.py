"""Pooling by hand, and against the pooling of sentence-transformers."""

from __future__ import annotations

import pytest
import torch

from idiolect.encoding.pooling import Pooling, check_pooling, pool
from idiolect.errors import ConfigError

HIDDEN = torch.tensor([[[1.0, 0.0], [2.0, 4.0], [6.0, 2.0], [9.0, 9.0]]])
MASK = torch.tensor([[True, True, True, False]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean", [3.0, 2.0]),
        ("first", [1.0, 0.0]),
        ("last", [6.0, 2.0]),
        ("weighted", [(1 + 4 + 18) / 6, (0 + 8 + 6) / 6]),
        ("echo", [3.0, 2.0]),
    ],
)
def test_by_hand(kind: Pooling, expected: list[float]) -> None:
    torch.testing.assert_close(pool(kind, HIDDEN, MASK), torch.tensor([expected]))


@pytest.mark.parametrize("kind", ["mean", "first", "last", "weighted"])
def test_equals_sentence_transformers(kind: Pooling) -> None:
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    theirs = {"first": "cls", "last": "lasttoken", "weighted": "weightedmean"}.get(kind, kind)
    torch.manual_seed(0)
    hidden = torch.randn(5, 7, 8)
    mask = torch.arange(7) < torch.tensor([7, 1, 3, 6, 2])[:, None]
    features = {"token_embeddings": hidden, "attention_mask": mask.long()}
    expected = modules.Pooling(8, theirs)(features)["sentence_embedding"]
    torch.testing.assert_close(pool(kind, hidden, mask), expected)


@pytest.mark.parametrize("kind", ["mean", "first", "last", "weighted", "echo"])
def test_nothing_to_pool_gives_zeros(kind: Pooling) -> None:
    assert pool(kind, HIDDEN, torch.zeros_like(MASK)).tolist() == [[0.0, 0.0]]


def test_an_unknown_kind_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="mean, first, last, weighted, echo"):
        check_pooling("max")
