"""Losses against sentence-transformers' own, values and gradients; and what they leave out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.errors import ConfigError, InputError
from idiolect.training.objectives.contrastive_losses import (
    KL,
    Candidates,
    ContrastiveLoss,
    InfoNCE,
    Margin,
    MarginMSE,
    Matryoshka,
    Triplet,
    embed_in_parts,
)

PAIRS, SIZE, NEGATIVES = 6, 16, 2


def _vectors(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, SIZE, generator=generator), dim=-1).requires_grad_()


def _columns(seed: int = 0) -> list[Tensor]:
    """Queries, documents, and two negatives for each pair, in sentence-transformers' format."""
    return [_vectors(PAIRS, seed=seed + i) for i in range(2 + NEGATIVES)]


def _with_negatives(negatives: int = NEGATIVES, scores: Tensor | None = None) -> Candidates:
    pair = torch.arange(PAIRS)
    return Candidates(
        positive=pair,
        negatives=torch.stack([pair + PAIRS * (1 + i) for i in range(negatives)], dim=1),
        ignored=torch.zeros(PAIRS, PAIRS * (1 + negatives), dtype=torch.bool),
        scores=scores,
    )


class _Given(nn.Module):
    """A "model" that returns its features as vectors."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}

    def get_embedding_dimension(self) -> int:
        return SIZE


def _assert_same(
    ours: ContrastiveLoss,
    candidates: Candidates,
    theirs: Callable[[list[Tensor]], Tensor],
    columns: Sequence[Tensor],
) -> None:
    """Compare values (theirs is a mean) and the gradients of all vectors."""
    unit = [F.normalize(one, dim=1) for one in columns]  # some of theirs do that, and some do not
    mine = ours(unit[0], torch.cat(unit[1:]), candidates) / PAIRS
    other = theirs(unit)
    torch.testing.assert_close(mine, other)
    for a, b in zip(
        torch.autograd.grad(mine, columns, retain_graph=True),
        torch.autograd.grad(other, columns),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def _losses() -> Any:
    from sentence_transformers.sentence_transformer import losses

    return losses


@pytest.mark.parametrize("both_ways", [False, True])
def test_info_nce(both_ways: bool) -> None:
    directions = ("query_to_doc", "doc_to_query") if both_ways else ("query_to_doc",)
    reference = _losses().MultipleNegativesRankingLoss(
        _Given(), scale=20.0, directions=directions, partition_mode="per_direction"
    )
    _assert_same(
        InfoNCE(temperature=0.05, bidirectional=both_ways),
        _with_negatives(),
        lambda columns: reference.compute_loss_from_embeddings(columns, None),
        _columns(),
    )


def test_triplet() -> None:
    losses = _losses()
    reference = losses.TripletLoss(_Given(), triplet_margin=0.3)
    _assert_same(
        Triplet(margin=0.3),
        _with_negatives(1),
        lambda columns: reference.compute_loss_from_embeddings(columns, None),
        _columns()[:3],
    )


def test_margin_is_a_triplet_of_cosines() -> None:
    losses = _losses()
    metric = losses.TripletDistanceMetric.COSINE
    reference = losses.TripletLoss(_Given(), distance_metric=metric, triplet_margin=0.3)
    _assert_same(
        Margin(margin=0.3),
        _with_negatives(1),
        lambda columns: reference.compute_loss_from_embeddings(columns, None),
        _columns()[:3],
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(MarginMSE(), "MarginMSELoss"), (KL(temperature=0.5), "DistillKLDivLoss")],
)
def test_distillation(ours: ContrastiveLoss, theirs: str) -> None:
    scores = torch.randn(PAIRS, 1 + NEGATIVES, generator=torch.Generator().manual_seed(9))
    options = {"temperature": 0.5} if isinstance(ours, KL) else {}
    reference = getattr(_losses(), theirs)(_Given(), **options)
    _assert_same(
        ours,
        _with_negatives(scores=scores),
        lambda columns: reference.compute_loss_from_embeddings(columns, scores),
        _columns(),
    )


def test_matryoshka() -> None:
    losses = _losses()
    model = _Given()
    reference = losses.MatryoshkaLoss(
        model, losses.MultipleNegativesRankingLoss(model), [SIZE, 8, 3]
    )
    _assert_same(
        Matryoshka(InfoNCE(), (SIZE, 8, 3)),
        _with_negatives(),
        lambda columns: reference([{"vectors": one} for one in columns], None),
        _columns(),
    )


def test_other_relevant_documents_are_no_negatives() -> None:
    queries, documents = _vectors(PAIRS), _vectors(PAIRS, seed=1)
    ignored = torch.zeros(PAIRS, PAIRS, dtype=torch.bool)
    ignored[0, 3] = True
    candidates = replace(Candidates.diagonal(PAIRS), ignored=ignored)
    for loss in (InfoNCE(), Triplet(margin=2.0), Margin(margin=2.0)):
        gradient = torch.autograd.grad(loss(queries[:1], documents, _first(candidates)), documents)
        moved = gradient[0].abs().sum(1) > 0
        assert moved[0], loss
        assert not moved[3], loss
    plain = InfoNCE(bidirectional=True)(queries, documents, candidates)
    scores = queries @ documents.T / 0.05
    there = -scores.masked_fill(ignored, -torch.inf).log_softmax(1).diagonal()
    back = -scores.masked_fill(ignored, -torch.inf).log_softmax(0).diagonal()
    torch.testing.assert_close(plain, (there + back).sum() / 2)


def _first(candidates: Candidates) -> Candidates:
    return Candidates(
        positive=candidates.positive[:1],
        negatives=candidates.negatives[:1],
        ignored=candidates.ignored[:1],
    )


def test_queries_with_the_same_document_are_not_each_others_negatives() -> None:
    """Both rows point at column 0, so in the backward direction neither query is a negative."""
    queries, document = _vectors(2), _vectors(1, seed=1)
    candidates = Candidates(
        positive=torch.tensor([0, 0]),
        negatives=torch.empty(2, 0, dtype=torch.long),
        ignored=torch.zeros(2, 1, dtype=torch.bool),
    )
    assert InfoNCE(bidirectional=True)(queries, document, candidates).item() == 0.0


def test_explicit_negatives_replace_those_of_the_batch() -> None:
    candidates = Candidates(
        positive=torch.tensor([0, 1, 2]),
        negatives=torch.tensor([[3, 4], [3, -1], [-1, -1]]),
        ignored=torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).bool(),
    )
    assert candidates.is_negative(5).int().tolist() == [
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0],
        [0, 1, 0, 1, 1],
    ]


@pytest.mark.parametrize("loss", [MarginMSE(), KL()])
def test_pairs_with_fewer_negatives(loss: ContrastiveLoss) -> None:
    queries, documents = _vectors(2), _vectors(4, seed=1)
    scores = torch.tensor([[3.0, 1.0, 2.0], [2.0, 0.5, torch.nan]])
    both = Candidates(
        positive=torch.tensor([0, 1]),
        negatives=torch.tensor([[2, 3], [2, -1]]),
        ignored=torch.zeros(2, 4, dtype=torch.bool),
        scores=scores,
    )
    alone = [
        Candidates(
            positive=both.positive[i : i + 1],
            negatives=both.negatives[i : i + 1, : 2 - i],
            ignored=both.ignored[i : i + 1],
            scores=scores[i : i + 1, : 3 - i],
        )
        for i in range(2)
    ]
    expected = sum(loss(queries[i : i + 1], documents, alone[i]) for i in range(2))
    total = loss(queries, documents, both)
    torch.testing.assert_close(total, expected)
    assert all(g.isfinite().all() for g in torch.autograd.grad(total, [queries, documents]))


@pytest.mark.parametrize("loss", [MarginMSE(), KL()])
def test_candidates_without_a_teachers_score_are_left_out(loss: ContrastiveLoss) -> None:
    queries, documents = _vectors(1), _vectors(4, seed=1)
    candidates = Candidates(
        positive=torch.tensor([0]),
        negatives=torch.tensor([[1, 2]]),
        ignored=torch.zeros(1, 4, dtype=torch.bool),
        scores=torch.tensor([[3.0, 1.0, torch.nan]]),
    )
    seen = replace(candidates, negatives=torch.tensor([[1]]), scores=torch.tensor([[3.0, 1.0]]))
    torch.testing.assert_close(loss(queries, documents, candidates), loss(queries, documents, seen))


def test_unusable_input_is_refused() -> None:
    queries, documents = _vectors(PAIRS), _vectors(PAIRS, seed=1)
    pairs = Candidates.diagonal(PAIRS)
    with pytest.raises(InputError, match="needs a teacher's scores"):
        KL()(queries, documents, pairs)
    with pytest.raises(InputError, match="explicit negatives"):
        MarginMSE()(queries, documents, replace(pairs, scores=torch.ones(PAIRS, 1)))
    with pytest.raises(InputError, match="17 dimensions, and the vectors have 16"):
        Matryoshka(InfoNCE(), (17,))(queries, documents, pairs)
    with pytest.raises(ConfigError, match="temperature"):
        InfoNCE(temperature=0.0)
    with pytest.raises(ConfigError, match="dimensions"):
        Matryoshka(InfoNCE(), ())


def _network(dropout: float) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, SIZE))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_cached_gradients_equal_plain_ones(dropout: float) -> None:
    network = _network(dropout)
    texts = torch.randn(2 * PAIRS, 8, generator=torch.Generator().manual_seed(3))
    parts = texts.split(5)

    def gradients(embed: Callable[[], Tensor]) -> list[Tensor]:
        torch.manual_seed(7)
        vectors = F.normalize(embed(), dim=1)
        loss = InfoNCE()(vectors[:PAIRS], vectors[PAIRS:], Candidates.diagonal(PAIRS))
        return list(torch.autograd.grad(loss, list(network.parameters())))

    plain = gradients(lambda: torch.cat([network(part) for part in parts]))
    cached = gradients(lambda: embed_in_parts(network, parts))
    for a, b in zip(plain, cached, strict=True):
        assert torch.equal(a, b)
    if not dropout:
        for a, b in zip(gradients(lambda: network(texts)), cached, strict=True):
            torch.testing.assert_close(a, b)


def test_cached_gradients_equal_sentence_transformers() -> None:
    """sentence-transformers' own gradient cache over the same network."""
    network = _network(0.0)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.modules_kwargs: dict[str, Any] = {}

        def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
            vectors = F.normalize(self.network(features["input_ids"]), dim=1)
            return {"sentence_embedding": vectors}

        def __getitem__(self, place: int) -> nn.Module:
            return self.network

        def __iter__(self) -> Any:
            return iter([self.network])

    queries, documents = (
        torch.randn(PAIRS, 8, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)
    )
    reference = _losses().CachedMultipleNegativesRankingLoss(Wrapped(), mini_batch_size=2)
    features = [
        {"input_ids": one, "attention_mask": torch.ones(PAIRS, 1)} for one in (queries, documents)
    ]
    reference(features, None).backward()
    wanted = [parameter.grad for parameter in network.parameters()]
    vectors = F.normalize(embed_in_parts(network, torch.cat([queries, documents]).split(2)), dim=1)
    loss = InfoNCE()(vectors[:PAIRS], vectors[PAIRS:], Candidates.diagonal(PAIRS)) / PAIRS
    for a, b in zip(torch.autograd.grad(loss, list(network.parameters())), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_a_large_batch_fits() -> None:
    """Only the texts are stored until the backward pass, not their activations."""
    network = _network(0.3)
    parts = torch.randn(600, 8).split(20)

    def kept(embed: Callable[[], Tensor]) -> int:
        numbers = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal numbers
            numbers += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            embed()
        return numbers

    assert kept(lambda: torch.cat([network(part) for part in parts])) > 600 * 32
    assert kept(lambda: embed_in_parts(network, parts)) == 600 * 8, "the texts, and no more"
