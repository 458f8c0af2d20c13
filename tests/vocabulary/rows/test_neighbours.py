"""Neighbours: sparsemax by hand, and vectors in which similar words are close."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.rows.neighbours import context_vectors, neighbour_mixture, sparsemax


def test_sparsemax_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.8, 0.1], [0.0, 3.0, 0.0], [0.2, 0.2, 0.2]])
    expected = torch.tensor([[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(sparsemax(scores), expected)


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 7)
    nearest = sparsemax(scores)
    torch.testing.assert_close(nearest.sum(1), torch.ones(5))
    distance = (scores - nearest).norm(dim=1)
    for _ in range(200):
        other = torch.rand(5, 7) ** 4
        other = other / other.sum(1, keepdim=True)
        assert (distance <= (scores - other).norm(dim=1) + 1e-6).all()


def test_mixture_excludes_tokens_without_a_vector() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    mixture = neighbour_mixture(vectors, new=torch.tensor([3, 4]), old=torch.tensor([0, 1, 2]))
    assert mixture.ids.tolist() == [0]
    assert mixture.weights.tolist() == [1.0]
    assert mixture.empty.tolist() == [False, True]


@pytest.fixture
def words() -> Tokenizer:
    names = ["cat", "dog", "wolf", "runs", "sleeps", "iron", "gold", "melts", "shines", "the", "x"]
    engine = tokenizers.Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer.from_engine(engine)


def test_similar_words_are_neighbours(words: Tokenizer) -> None:
    rng = random.Random(0)
    sides = (["cat", "dog", "wolf"], ["runs", "sleeps"]), (["iron", "gold"], ["melts", "shines"])
    texts = []
    for _ in range(2000):
        nouns, verbs = rng.choice(sides)
        texts.append(f"the {rng.choice(nouns)} {rng.choice(verbs)}")
    vectors = context_vectors(words, texts)
    assert len(vectors) == len(words)
    assert not vectors[words.encode("x")[0]].any()
    assert torch.equal(vectors, context_vectors(words, texts))
    ids = {name: words.encode(name)[0] for name in ("cat", "dog", "wolf", "iron", "gold")}
    old = torch.tensor([ids["cat"], ids["dog"], ids["iron"], ids["gold"]])
    mixture = neighbour_mixture(vectors, torch.tensor([ids["wolf"]]), old)
    assert set(mixture.ids.tolist()) <= {ids["cat"], ids["dog"]}
    assert float(mixture.weights.sum()) == pytest.approx(1, abs=1e-5)


def test_windows_do_not_cross_documents(words: Tokenizer) -> None:
    apart = context_vectors(words, ["cat runs", "iron melts"] * 50)
    assert torch.nn.functional.cosine_similarity(
        apart[words.encode("cat")], apart[words.encode("iron")]
    ).abs().item() == pytest.approx(0, abs=1e-5)


def test_the_mixture_equals_the_published_formula() -> None:
    """FOCUS: sparsemax of the cosines with all overlapping tokens, found here by bisection."""
    generator = np.random.default_rng(2)
    vectors = generator.standard_normal((40, 5)) * generator.uniform(0.2, 4, (40, 1))
    matrix = generator.standard_normal((30, 6))
    old, new = np.arange(30), np.arange(30, 40)
    vectors[[4, 11]] = 0  # original tokens without a vector
    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    wanted = []
    for token in new:
        cosines = directions[[n for n in old if vectors[n].any()]] @ directions[token]
        low, high = -2.0, 1.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if (cosines - middle).clip(0).sum() > 1 else (low, middle)
        weights = np.zeros(30)
        weights[[n for n in old if vectors[n].any()]] = (cosines - low).clip(0)
        assert 1 < (weights > 0).sum() < 28
        wanted.append(weights @ matrix)
    mixture = neighbour_mixture(*map(torch.from_numpy, (vectors.astype(np.float32), new, old)))
    made = mixture.apply(torch.from_numpy(matrix.astype(np.float32)))
    np.testing.assert_allclose(made.numpy(), np.stack(wanted), atol=1e-5)
