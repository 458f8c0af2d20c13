"""`/rerank`, `/v1/rerank` and `/v2/rerank`, compatible with Cohere and Jina."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
from fastapi import APIRouter

from idiolect.encoding.text_reader import EncodingCounts
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.serve.bodies.text_bodies import RerankBody, RerankedBody
from idiolect.serve.http_errors import RequestError
from idiolect.serve.json_response import JsonResponse
from idiolect.serve.routes.embedding_routes import encode_texts
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.service import Service, Serving

__all__ = ["rerank", "router"]

router = APIRouter(tags=["ranking"])


@router.post("/rerank", response_model=RerankedBody, summary="Order documents for a query")
@router.post("/v1/rerank", response_model=RerankedBody, summary="Order documents (Cohere, Jina)")
@router.post("/v2/rerank", response_model=RerankedBody, summary="Order documents (Cohere)")
async def rerank(body: RerankBody, service: Serving) -> JsonResponse:
    """Score documents with the cross-encoder, or else by the cosine of vectors."""
    texts = [one if isinstance(one, str) else one.text for one in body.documents]
    limit = service.settings.max_texts
    if len(texts) > limit:
        raise RequestError(413, f"{len(texts):,} documents; at most {limit:,}", hint="send fewer")
    with service.using() as parts:
        parts.check_model(body.model)
        if parts.reranker is not None:
            by = "cross-encoder"
            scores = await service.models.run(_cross_scores, parts.reranker, body.query, texts)
        else:
            by = "cosine"
            scores = await _cosines(service, parts, body.query, texts)
    order = sorted(range(len(texts)), key=lambda number: -scores[number])[: body.top_n]
    results: list[dict[str, Any]] = [
        {"index": number, "relevance_score": scores[number]}
        | ({"document": {"text": texts[number]}} if body.return_documents else {})
        for number in order
    ]
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "scored_by": by}
    return JsonResponse({"id": str(uuid.uuid4()), "results": results, "meta": meta})


def _cross_scores(reranker: CrossEncoder, query: str, texts: list[str]) -> list[float]:
    """Return probabilities of relevance."""
    logits = reranker.score([(query, text) for text in texts]).astype(np.float64)
    scores: list[float] = (1 / (1 + np.exp(-np.clip(logits, -500, 500)))).tolist()
    return scores


async def _cosines(
    service: Service, parts: ServedParts, query: str, texts: list[str]
) -> list[float]:
    encoder = parts.need("encoder")
    counts = EncodingCounts()
    (asked,) = await encode_texts(service, encoder, [query], "query", None, counts)
    vectors = await encode_texts(service, encoder, texts, "document", None, counts)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked)
    scores: list[float] = (vectors @ asked / np.maximum(lengths, 1e-12)).tolist()
    return scores
