"""Five evaluations of word vectors; a sixth, by tasks, is in `tasks/probes/word_probes`.

Schnabel et al. 2015, "Evaluation methods for unsupervised word embeddings", EMNLP. The evaluations
rank models differently, and much of the difference comes from word frequency.

- relatedness: Spearman's correlation of cosines with human scores.
- preference: the same for the usual arguments of verbs and nouns, such as a verb and its object.
- analogy: share of questions whose fourth word is the nearest to b - a + c, except a, b and c.
- categorisation: purity of clusters (spherical k-means, ten starts), over several runs.
- coherence: how often a reference model finds the intruder among a word and its neighbours.

A question with an unknown word is left out, and the number of answered questions is reported with
every score. `score_all` counts such questions as wrong, or as having the mean similarity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.words.word_datasets import WordTestSet
from idiolect.words.word_vectors import WordVectors

__all__ = ["WordScore", "coherence", "evaluate_words", "spearman"]

_CATEGORY_RUNS = 5
_STARTS, _ROUNDS = 10, 50
_BLOCK = 1024


@dataclass(frozen=True)
class WordScore:
    """Result of one model on one test set."""

    test: str
    kind: str
    score: float
    """Score on the questions whose words are all known; NaN if there are too few."""
    score_all: float
    """Score on all questions; an unanswered one is wrong or has the mean similarity."""
    answered: int
    questions: int
    sections: dict[str, float] = field(default_factory=dict)
    """Analogy: accuracy by section."""
    baselines: dict[str, float] = field(default_factory=dict)
    """Tagging and classification: scores without the vectors, on the same questions."""


def evaluate_words(
    vectors: WordVectors, test: WordTestSet, *, method: str = "3cosadd", seed: int = 0
) -> WordScore:
    """Measure vectors on a test set.

    Args:
        vectors: The vectors.
        test: The test set.
        method: How analogies are solved: `3cosadd` or `3cosmul`.
        seed: Random seed of clusters.
    """
    if test.kind == "analogy":
        return _analogy(vectors, test, method)
    if test.kind == "categorisation":
        return _categorisation(vectors, test, seed)
    cosines: list[float] = []
    known = []
    for first, second, _ in test.pairs:
        a, b = vectors.place(first), vectors.place(second)
        known.append(a is not None and b is not None)
        if a is not None and b is not None:
            cosines.append(float(vectors.directions[a] @ vectors.directions[b]))
    scores = np.array([score for *_, score in test.pairs])
    mask = np.array(known, bool)
    filled = np.full(len(scores), np.mean(cosines) if cosines else 0.0)
    filled[mask] = cosines
    answered = int(mask.sum())
    of_known = spearman(np.array(cosines), scores[mask])
    return WordScore(
        test.name, test.kind, of_known, spearman(filled, scores), answered, len(scores)
    )


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return Spearman's rank correlation; ties share their mean rank, constant values give NaN."""
    if len(first) < 2:
        return float("nan")
    ranks = [_ranks(np.asarray(values)) for values in (first, second)]
    centred = [one - one.mean() for one in ranks]
    spread = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / spread) if spread else float("nan")


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def _analogy(vectors: WordVectors, test: WordTestSet, method: str) -> WordScore:
    if method not in ("3cosadd", "3cosmul"):
        raise InputError(f"method is {method!r}", hint="one of 3cosadd, 3cosmul")
    right = answered = total = 0
    sections = {}
    for name, questions in test.sections:
        total += len(questions)
        places = [[vectors.place(word) for word in question] for question in questions]
        known = np.array([row for row in places if None not in row], np.int64).reshape(-1, 4)
        hits = _solved(vectors.directions, known, method)
        sections[name] = hits / len(known) if len(known) else float("nan")
        right += hits
        answered += len(known)
    share = right / answered if answered else float("nan")
    return WordScore(test.name, test.kind, share, right / total, answered, total, sections)


def _solved(directions: NDArray[Any], questions: NDArray[Any], method: str) -> int:
    """Count the questions whose nearest word, except the given three, is the fourth."""
    right = 0
    for start in range(0, len(questions), _BLOCK):
        a, b, c, d = questions[start : start + _BLOCK].T
        if method == "3cosadd":
            scores = (directions[b] - directions[a] + directions[c]) @ directions.T
        else:
            near = [(directions[one] @ directions.T + 1) / 2 for one in (a, b, c)]
            scores = near[1] * near[2] / (near[0] + 1e-3)
        rows = np.arange(len(a))
        for given in (a, b, c):
            scores[rows, given] = -np.inf
        right += int((scores.argmax(1) == d).sum())
    return right


def _categorisation(vectors: WordVectors, test: WordTestSet, seed: int) -> WordScore:
    known = [(vectors.place(word), category) for word, category in test.categories]
    known = [(place, category) for place, category in known if place is not None]
    labels = np.unique([category for _, category in known], return_inverse=True)[1]
    answered, total = len(known), len(test.categories)
    if answered < 2:
        nan = float("nan")
        return WordScore(test.name, test.kind, nan, 0.0, answered, total)
    rows = vectors.directions[[place for place, _ in known]]  # type: ignore[index]
    clusters = int(labels.max()) + 1
    generator = np.random.default_rng(seed)
    purities = [_purity(_cluster(rows, clusters, generator), labels) for _ in range(_CATEGORY_RUNS)]
    score = float(np.mean(purities))
    return WordScore(test.name, test.kind, score, score * answered / total, answered, total)


def _cluster(
    rows: NDArray[Any], clusters: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return the best of several runs of spherical k-means. (rows,)."""
    best, best_fit = np.zeros(len(rows), np.int64), -np.inf
    for _ in range(_STARTS):
        centres = rows[generator.choice(len(rows), clusters, replace=False)]
        assigned = np.full(len(rows), -1)
        for _ in range(_ROUNDS):
            scores = rows @ centres.T
            fresh = scores.argmax(1)
            if (fresh == assigned).all():
                break
            assigned = fresh
            sums = np.zeros_like(centres)
            np.add.at(sums, assigned, rows)
            norms = np.linalg.norm(sums, axis=1, keepdims=True)
            centres = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centres)
        fit = float(scores.max(1).sum())
        if fit > best_fit:
            best, best_fit = assigned, fit
    return best


def _purity(clusters: NDArray[Any], labels: NDArray[Any]) -> float:
    """Return the share of words whose category is the most frequent one of their cluster."""
    table = np.zeros((int(clusters.max()) + 1, int(labels.max()) + 1), np.int64)
    np.add.at(table, (clusters, labels), 1)
    return float(table.max(1).sum() / len(labels))


def coherence(
    vectors: WordVectors,
    reference: WordVectors,
    *,
    queries: int = 200,
    seed: int = 0,
) -> WordScore:
    """Measure how often a reference model finds the intruder among a word's neighbours.

    Schnabel et al. asked people. Here a reference model judges, so the score measures how far the
    two models agree. A question is a word, its two nearest words and a random one of similar
    frequency; the judge names the word that is least similar to the others. Chance level is 1 in 4.
    """
    generator = np.random.default_rng(seed)
    shared = [place for place, word in enumerate(vectors.words) if word in reference]
    shared = shared[:20_000]
    if len(shared) < 8:
        nan = float("nan")
        return WordScore("coherence", "coherence", nan, nan, 0, queries)
    rows = vectors.directions[shared]
    right = 0
    drawn = generator.choice(len(shared), min(queries, len(shared)), replace=False)
    for query in drawn.tolist():
        scores = rows @ rows[query]
        scores[query] = -np.inf
        near = np.argsort(-scores)[:2].tolist()
        taken = {query, *near}
        intruder = query
        while intruder in taken:
            low, high = max(0, query // 2 - 20), min(len(shared), query * 2 + 40)
            intruder = int(generator.integers(low, high))
        asked = [query, near[0], near[1], intruder]
        words = [vectors.words[shared[place]] for place in asked]
        right += reference.doesnt_match(words) == words[3]
    share = right / len(drawn)
    return WordScore("coherence", "coherence", share, share, len(drawn), len(drawn))
