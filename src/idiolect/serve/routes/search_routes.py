"""`/search`, `/similar` and `/recommend`: search an index, and ask a recommender."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from idiolect.search.answers.support import language_of
from idiolect.search.items import Hit, Hits, Item
from idiolect.serve.bodies.search_bodies import (
    HitsBody,
    RecommendBody,
    ResultsBody,
    SearchBody,
    SearchManyBody,
    SearchVectorsBody,
    SimilarBody,
)
from idiolect.serve.hit_details import common_words, hit_record
from idiolect.serve.http_errors import NoItemError, RequestError
from idiolect.serve.json_response import JsonResponse
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.service import Serving

__all__ = ["recommend", "router", "search", "search_many", "search_vectors", "similar"]

router = APIRouter(tags=["search"])


@router.post("/search", response_model=HitsBody, summary="Search the index")
async def search(body: SearchBody, service: Serving) -> JsonResponse:
    """Find the best items for a query by words, by vectors, or by both."""
    began = time.perf_counter()
    with service.using() as parts:
        hits, mode, note = await service.searches.run(_search, parts, body)
    return _response(hits, mode, began, note)


def _response(hits: list[dict[str, Any]], mode: str, began: float, note: str = "") -> JsonResponse:
    took = round(1000 * (time.perf_counter() - began), 2)
    return JsonResponse({"hits": hits, "mode": mode, "note": note, "took_ms": took})


def _search(parts: ServedParts, body: SearchBody) -> tuple[list[dict[str, Any]], str, str]:
    index = parts.need("index")
    language = language_of(index.store)
    if body.system == "base" and parts.base_search is not None:
        old = parts.base_search.search(body.query, body.top_k, body.mode, filter=body.filter)
        return [hit_record(hit, body.query, language) for hit in old], body.mode, ""
    if body.system not in (None, "", "run"):
        raise RequestError(404, f"no system {body.system!r}", hint="/info lists them")
    hits: Hits = index.search(
        body.query,
        body.top_k,
        body.mode,
        filter=body.filter,
        namespace=body.namespace,
        mmr_diversity=body.mmr_diversity,
    )
    mode, note = body.mode, ""
    if mode == "hybrid" and not index.has_encoder:
        mode, note = "lexical", "by words alone: the vectors came with the items"
    elif mode == "hybrid" and not index.hybrid_weight.dense:
        note = f"by words alone, vectors have no weight: {index.hybrid_weight.evidence}"
    return [hit_record(hit, body.query, language) for hit in hits], mode, note


@router.post("/search_many", response_model=ResultsBody, summary="Search several queries")
async def search_many(body: SearchManyBody, service: Serving) -> JsonResponse:
    """Find the best items for each of several queries, without passages."""
    with service.using() as parts:
        found = await service.searches.run(
            parts.need("index").search_many,
            body.queries,
            body.top_k,
            body.mode,
            filter=body.filter,
            namespace=body.namespace,
        )
    return _results(found)


@router.post("/search_vectors", response_model=ResultsBody, summary="Search by vectors")
async def search_vectors(body: SearchVectorsBody, service: Serving) -> JsonResponse:
    """Find the items nearest to each of several vectors."""
    with service.using() as parts:
        found = await service.searches.run(
            parts.need("index").search_vectors,
            body.vectors,
            body.top_k,
            filter=body.filter,
            namespace=body.namespace,
        )
    return _results(found)


def _results(found: list[Hits]) -> JsonResponse:
    def record(hit: Hit) -> dict[str, Any]:
        return {"id": hit.id, "score": hit.score, "text": hit.text, "metadata": hit.metadata}

    return JsonResponse({"results": [[record(hit) for hit in hits] for hits in found]})


@router.post("/similar", response_model=HitsBody, summary="Find similar items")
async def similar(body: SimilarBody, service: Serving) -> JsonResponse:
    """Find the items nearest to one, or to the mean of several, and the words they share."""
    began = time.perf_counter()
    with service.using() as parts:
        hits = await service.searches.run(_similar, parts, body)
    return _response(hits, "dense", began)


def _similar(parts: ServedParts, body: SimilarBody) -> list[dict[str, Any]]:
    index = parts.need("index")
    ids = [*dict.fromkeys((body.ids or []) + ([body.id] if body.id else []))]
    if not ids:
        raise RequestError(422, "no item is given", hint="pass id or ids")
    found = index.store.fetch(ids, namespace=body.namespace, vectors=True)
    if missing := [id for id in ids if id not in found]:
        raise NoItemError(missing[0])
    scope = {"filter": body.filter, "namespace": body.namespace}
    if len(ids) == 1:
        hits = index.similar(ids[0], body.top_k, **scope)
    else:
        mean = sum(found[id].vector for id in ids) / len(ids)
        several = index.search_vectors(mean, body.top_k + len(ids), **scope)[0]
        hits = [hit for hit in several if hit.id not in found][: body.top_k]
    language = language_of(index.store)
    texts = [item.text for item in found.values()]
    return [
        hit_record(hit, "", language) | {"why": common_words(texts, hit.text, language)}
        for hit in hits
    ]


@router.post("/recommend", response_model=HitsBody, summary="Recommend the next items")
async def recommend(body: RecommendBody, service: Serving) -> JsonResponse:
    """Recommend items after a history of ids, oldest first."""
    began = time.perf_counter()
    with service.using() as parts:
        hits = await service.models.run(_recommend, parts, body)
    return _response(hits, "recommend", began)


def _recommend(parts: ServedParts, body: RecommendBody) -> list[dict[str, Any]]:
    recommender = parts.need("recommender")
    found = recommender.recommend(body.history, body.top_k, body.exclude_seen)
    items: dict[str, Item] = {}
    if parts.index is not None:
        items = parts.index.store.fetch([one.id for one in found])
    return [
        {
            "id": one.id,
            "score": one.score,
            "text": items[one.id].text if one.id in items else one.text,
            "metadata": dict(items[one.id].metadata) if one.id in items else {},
            "why": [one.because] if one.because else [],
        }
        for one in found
    ]
