"""Find the passages of an index that are relevant to a question.

If the index stores passages (`Index.add_passages`), these are searched. Otherwise items are
searched, and the best ones are split into passages, which are then ranked by the words of the
question and, if there is an encoder, by vectors. In both cases the passages may be reranked by a
slower model, and are diversified. Finally, each passage is expanded to the whole sentences around
it, since a reader needs more context than a search (small-to-large retrieval).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import VerificationError
from idiolect.search.answers.answer import Passage
from idiolect.search.answers.answer_options import AnswerOptions
from idiolect.search.answers.support import content_terms, language_of
from idiolect.search.chunks import split_text, widen
from idiolect.search.fusion import diversify
from idiolect.search.index_search import IndexSearch
from idiolect.search.items import Hit
from idiolect.search.passages import PASSAGE_LENGTH, PassageNamespace
from idiolect.search.store.lexical_terms import text_terms

__all__ = ["FoundPassages", "answer_confidence", "find_passages", "sentence_scores"]

_MOST = 40
"""Maximum passages of items to encode and compare with a question."""


@dataclass(frozen=True)
class FoundPassages:
    """The passages for a question, best first, and the confidence that they answer it."""

    passages: tuple[Passage, ...]
    confidence: float


@dataclass
class _Candidate:
    passage: Passage
    vector: NDArray[np.float32] | None = None


def answer_confidence(coverage: float, cosine: float | None) -> float:
    """Return the confidence that passages answer a question, from 0 to 1.

    Args:
        coverage: The largest fraction of the question's content words in one passage.
        cosine: The largest cosine of the question and a passage; None without an encoder.
    """
    return coverage if cosine is None else (coverage + max(0.0, cosine)) / 2


def find_passages(
    index: IndexSearch, question: str, top_k: int, options: AnswerOptions, *, max_length: int
) -> FoundPassages:
    """Find the passages of an index that are relevant to a question.

    Args:
        index: The index.
        question: The question.
        top_k: The number of passages.
        options: How to search.
        max_length: Maximum words of an expanded passage.

    Raises:
        InputError: An option of the search is not valid.
        ConfigError: The mode needs an encoder and there is none.
        VerificationError: A score of the reranker is not finite.
    """
    names = PassageNamespace.of(index.store)
    most = max(options.candidates, 3 * top_k)
    depth = min(most + 50 * len(options.exclude), 10_000)
    if names is not None and names.exists(options.namespace):
        found = _stored(index, names, question, depth, options)
    else:
        found = _split(index, question, depth, options)
    del found[most:]
    texts = _whole_texts(index, options.namespace, found)
    query = index.question_vector(question) if options.mode != "lexical" else None
    if options.rerank is not None and found:
        found = _reranked(found, question, options.rerank)
    hits = [Hit(str(n), one.passage.score, "", {}) for n, one in enumerate(found)]
    vectors = {str(n): one.vector for n, one in enumerate(found) if one.vector is not None}
    hits = diversify(hits, vectors, len(hits), options.mmr_diversity)
    found = [found[int(hit.id)] for hit in hits]
    chosen = _grown([one.passage for one in found], texts, top_k, max_length)
    best = found[:top_k]
    language = language_of(index.store)
    wanted = set(content_terms(question, language))
    coverage = max((_share(wanted, one.text, language) for one in chosen), default=0.0)
    cosines = [one.vector for one in best if one.vector is not None]
    cosine = float(max(map(_cosine(query), cosines))) if query is not None and cosines else None
    return FoundPassages(tuple(chosen), answer_confidence(coverage, cosine) if chosen else 0.0)


def sentence_scores(
    index: IndexSearch, question: str, sentences: Sequence[str]
) -> NDArray[np.float32]:
    """Score sentences for a question by words and, if there is an encoder, by vectors."""
    language = language_of(index.store)
    wanted = set(content_terms(question, language))
    words = np.array([_share(wanted, text, language) for text in sentences], np.float32)
    query = index.question_vector(question)
    if query is None:
        return words
    vectors = index.text_vectors(sentences)
    cosines = np.array([max(0.0, _cosine(query)(vector)) for vector in vectors], np.float32)
    return np.float32(0.5) * (words + cosines)


def _stored(
    index: IndexSearch,
    names: PassageNamespace,
    question: str,
    depth: int,
    options: AnswerOptions,
) -> list[_Candidate]:
    """Search the stored passages; passages of changed or removed items are skipped."""
    space = names.name(options.namespace)
    hits = index.search(question, depth, options.mode, filter=options.filter, namespace=space)
    owners = [names.owner(hit) for hit in hits]
    texts = index.store.fetch(list(dict.fromkeys(owners)), namespace=options.namespace)
    stored = index.store.fetch([hit.id for hit in hits], namespace=space, vectors=True)
    found = []
    for hit, owner in zip(hits, owners, strict=True):
        start = names.start(hit)
        whole = texts[owner].text if owner in texts else ""
        if owner in options.exclude or not whole.startswith(hit.text, start):
            continue
        passage = Passage(owner, start, start + len(hit.text), hit.text, hit.score)
        vector = stored[hit.id].vector if index.has_encoder and hit.id in stored else None
        found.append(_Candidate(passage, vector))
    return found


def _split(
    index: IndexSearch, question: str, depth: int, options: AnswerOptions
) -> list[_Candidate]:
    """Search items, and return their passages, scored for the question."""
    scope = {"filter": options.filter, "namespace": options.namespace}
    hits = index.search(question, depth, options.mode, **scope)  # type: ignore[arg-type]
    hits = [hit for hit in hits if hit.id not in options.exclude]
    parts = [(hit, chunk) for hit in hits for chunk in split_text(hit.text, PASSAGE_LENGTH)]
    language = language_of(index.store)
    wanted = set(content_terms(question, language))
    shares = [_share(wanted, chunk.text, language) for _, chunk in parts]
    if len(parts) > _MOST:
        order = sorted(range(len(parts)), key=lambda n: (-shares[n] - parts[n][0].score, n))
        kept = sorted(order[:_MOST])
        parts, shares = [parts[n] for n in kept], [shares[n] for n in kept]
    if not parts:
        return []
    query = index.question_vector(question) if options.mode != "lexical" else None
    texts = [chunk.text for _, chunk in parts]
    vectors = [None] * len(parts) if query is None else list(index.text_vectors(texts))
    whole = len(parts) == len({hit.id for hit, _ in parts})
    top = max(hit.score for hit, _ in parts) or 1.0
    found = []
    for (hit, chunk), share, vector in zip(parts, shares, vectors, strict=True):
        score = hit.score
        if not whole:
            near = None if vector is None or query is None else _cosine(query)(vector)
            own = near if options.mode == "dense" and near is not None else share
            if options.mode == "hybrid" and near is not None:
                own = (share + near) / 2
            score = (hit.score / top + own) / 2
        passage = Passage(hit.id, chunk.start, chunk.end, chunk.text, float(score))
        found.append(_Candidate(passage, vector))
    found.sort(key=lambda one: -one.passage.score)
    return found


def _reranked(
    found: Sequence[_Candidate], question: str, rerank: Callable[..., NDArray[np.float32]]
) -> list[_Candidate]:
    scores = np.asarray(rerank([(question, one.passage.text) for one in found]), np.float64)
    if scores.shape != (len(found),) or not np.isfinite(scores).all():
        raise VerificationError(
            f"the reranker returned {scores.shape} scores for {len(found)} passages, or one that is"
            " not finite",
            hint="it returns one number for each pair of a question and a passage",
        )
    again = []
    for n in np.argsort(-scores, kind="stable"):
        old = found[n].passage
        passage = Passage(old.id, old.start, old.end, old.text, float(scores[n]))
        again.append(_Candidate(passage, found[n].vector))
    return again


def _whole_texts(index: IndexSearch, namespace: str, found: Sequence[_Candidate]) -> dict[str, str]:
    ids = list(dict.fromkeys(one.passage.id for one in found))
    items = index.store.fetch(ids, namespace=namespace)
    return {id: item.text for id, item in items.items()}


def _grown(
    passages: Sequence[Passage], texts: dict[str, str], top_k: int, max_length: int
) -> list[Passage]:
    """Expand the first passages by the sentences around them, without overlaps."""
    grown: list[Passage] = []
    for one in passages:
        if len(grown) == top_k:
            break
        if any(one.id == o.id and o.start <= one.start and one.end <= o.end for o in grown):
            continue
        text = texts.get(one.id, "")
        if not text.startswith(one.text, one.start):  # the item was changed after the search
            continue
        start, end = widen(text, (one.start, one.end), max_length)
        before = [o.end for o in grown if o.id == one.id and o.end <= one.start]
        after = [o.start for o in grown if o.id == one.id and o.start >= one.end]
        start, end = max([start, *before]), min([end, *after])
        start, end = min(start, one.start), max(end, one.end)
        part = text[start:end]
        start += len(part) - len(part.lstrip())
        part = part.strip()
        grown.append(Passage(one.id, start, start + len(part), part, one.score))
    return grown


def _share(wanted: set[str], text: str, language: str) -> float:
    return len(wanted & set(text_terms(text, language))) / len(wanted) if wanted else 0.0


def _cosine(
    query: NDArray[np.float32] | None,
) -> Callable[[NDArray[np.float32]], float]:
    def cosine(vector: NDArray[np.float32]) -> float:
        assert query is not None
        norms = float(np.linalg.norm(query) * np.linalg.norm(vector))
        return float(query @ vector) / norms if norms else 0.0

    return cosine
