"""`/vectors/*`, `/query` and `/describe_index_stats`, compatible with Pinecone.

A vector is an item. Its text is the metadata field `text`, so lexical search finds it, too. Without
values, the encoder of the index computes them from the text.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query

from idiolect.search.items import Item
from idiolect.search.passages import PassageNamespace
from idiolect.serve.bodies.pinecone_bodies import (
    DeleteVectorsBody,
    FetchedBody,
    IndexStats,
    ListedBody,
    MatchesBody,
    QueryBody,
    StatsBody,
    UpdateVectorBody,
    UpsertBody,
    UpsertedBody,
)
from idiolect.serve.bodies.search_bodies import NamespaceQuery
from idiolect.serve.http_errors import RequestError
from idiolect.serve.json_response import JsonResponse
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.service import Serving

__all__ = [
    "delete",
    "describe",
    "fetch",
    "list_ids",
    "query",
    "router",
    "update",
    "upsert",
]

router = APIRouter(tags=["vectors (Pinecone)"])


@router.post("/vectors/upsert", response_model=UpsertedBody, summary="Add or replace vectors")
async def upsert(body: UpsertBody, service: Serving) -> JsonResponse:
    """Write vectors; they are on disk when the response is sent."""
    items = []
    for one in body.vectors:
        metadata = dict(one.metadata or {})
        text = metadata.get("text", "")
        values = None if one.values is None else np.asarray(one.values, np.float32)
        items.append(Item(one.id, text if isinstance(text, str) else "", metadata, values))
    with service.using() as parts:
        count = await service.write(_add, parts, items, body.namespace)
    return JsonResponse({"upsertedCount": count})


def _add(parts: ServedParts, items: list[Item], namespace: str) -> int:
    """Write items, and return how many are stored; those whose texts have no tokens are not."""
    index = parts.need("index")
    # `Index.add` would delete a stored item with this id.
    bare = next((one for one in items if one.vector is None and not one.text.strip()), None)
    if bare is not None:
        raise RequestError(
            400, f"the vector {bare.id!r} has no values and no text", hint="pass one of them"
        )
    if index.store.metric == "cosine":
        zero = next((one for one in items if one.vector is not None and not one.vector.any()), None)
        if zero is not None:
            raise RequestError(
                400, f"the vector of {zero.id!r} is zero", hint="a vector needs another value"
            )
    ids = [item.id for item in items]
    if len(set(ids)) < len(ids):
        raise RequestError(400, "an id occurs twice in one request", hint="keep one of them")
    return len(items) - int(index.add(items, namespace=namespace)["empty"])


@router.get("/vectors/fetch", response_model=FetchedBody, summary="Read vectors by id")
async def fetch(
    ids: Annotated[list[str], Query(min_length=1, max_length=1000)],
    service: Serving,
    namespace: NamespaceQuery = "",
) -> JsonResponse:
    """Return the vectors and metadata of some ids; unknown ones are left out."""
    with service.using() as parts:
        index = parts.need("index")
        found = await service.searches.run(
            index.store.fetch, ids, namespace=namespace, vectors=True
        )
    vectors = {
        id: {"id": id, "values": _values(item), "metadata": _metadata(item)}
        for id, item in found.items()
    }
    return JsonResponse({"vectors": vectors, "namespace": namespace, "usage": {"readUnits": 1}})


@router.post("/query", response_model=MatchesBody, summary="Find the nearest vectors")
async def query(body: QueryBody, service: Serving) -> JsonResponse:
    """Find the vectors nearest to one."""
    with service.using() as parts:
        matches = await service.searches.run(_query, parts, body)
    return JsonResponse(
        {"matches": matches, "namespace": body.namespace, "usage": {"readUnits": 1}}
    )


def _query(parts: ServedParts, body: QueryBody) -> list[dict[str, Any]]:
    index = parts.need("index")
    if (body.vector is None) == (body.id is None):
        raise RequestError(400, "the query is not one vector or one id", hint="pass one of them")
    scope: dict[str, Any] = {"namespace": body.namespace}
    vector: Any = body.vector
    if body.id is not None:
        found = index.store.fetch([body.id], vectors=True, **scope)
        if body.id not in found:
            return []
        vector = found[body.id].vector
    hits = index.search_vectors([vector], body.top_k, filter=body.filter, **scope)[0]
    values: dict[str, Item] = {}
    if body.include_values:
        values = index.store.fetch([hit.id for hit in hits], vectors=True, **scope)
    return [
        {"id": hit.id, "score": hit.score}
        | ({"values": _values(values[hit.id])} if hit.id in values else {"values": []})
        | ({"metadata": _metadata(hit)} if body.include_metadata else {})
        for hit in hits
    ]


@router.post("/vectors/delete", summary="Delete vectors")
async def delete(body: DeleteVectorsBody, service: Serving) -> JsonResponse:
    """Delete vectors by id, by filter, or all of a namespace; unknown ids are left out."""
    given = [body.ids is not None, body.delete_all, body.filter is not None]
    if sum(given) != 1:
        raise RequestError(
            400, "not exactly one of ids, filter and deleteAll is given", hint="pass one of them"
        )
    with service.using() as parts:
        await service.write(_delete, parts, body)
    return JsonResponse({})


def _delete(parts: ServedParts, body: DeleteVectorsBody) -> None:
    index = parts.need("index")
    if body.delete_all:
        index.drop(body.namespace)
    else:
        index.delete(body.ids, filter=body.filter, namespace=body.namespace)


@router.post("/vectors/update", summary="Change a vector")
async def update(body: UpdateVectorBody, service: Serving) -> JsonResponse:
    """Change the values or fields of the metadata of a vector."""
    with service.using() as parts:
        await service.write(_update, parts, body)
    return JsonResponse({})


def _update(parts: ServedParts, body: UpdateVectorBody) -> None:
    index = parts.need("index")
    if body.id not in index.store.fetch([body.id], namespace=body.namespace):
        raise RequestError(404, f"no vector {body.id!r}", hint="add it with /vectors/upsert")
    text = (body.set_metadata or {}).get("text")
    index.update(
        body.id,
        text=text if isinstance(text, str) else None,
        metadata=body.set_metadata,
        vector=body.values,
        namespace=body.namespace,
    )


@router.get("/vectors/list", response_model=ListedBody, summary="List ids")
async def list_ids(
    service: Serving,
    namespace: NamespaceQuery = "",
    prefix: Annotated[str, Query(max_length=512)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    pagination_token: Annotated[str | None, Query(alias="paginationToken", max_length=1024)] = None,
) -> JsonResponse:
    """List ids in order, a page at a time."""
    after = "" if pagination_token is None else _read_token(pagination_token)
    with service.using() as parts:
        index = parts.need("index")
        ids = await service.searches.run(
            index.store.list, prefix, after=after, limit=limit + 1, namespace=namespace
        )
    page = [{"id": id} for id in ids[:limit]]
    found: dict[str, Any] = {"vectors": page, "namespace": namespace, "usage": {"readUnits": 1}}
    if len(ids) > limit:
        token = base64.urlsafe_b64encode(ids[limit - 1].encode()).decode()
        found["pagination"] = {"next": token}
    return JsonResponse(found)


@router.post("/describe_index_stats", response_model=IndexStats, summary="The size of the index")
async def describe(service: Serving, body: StatsBody | None = None) -> JsonResponse:
    """Return the numbers of vectors."""
    if body is not None and body.filter:
        raise RequestError(400, "statistics have no filter", hint="leave it out")
    with service.using() as parts:
        store = parts.need("index").store
        counts = await service.searches.run(PassageNamespace.item_counts, store)
        return JsonResponse(
            {
                "namespaces": {name: {"vectorCount": count} for name, count in counts.items()},
                "dimension": store.dimensions,
                "indexFullness": 0.0,
                "totalVectorCount": sum(counts.values()),
                "metric": {"inner": "dotproduct", "l2": "euclidean"}.get(store.metric, "cosine"),
                "vectorType": "dense",
            }
        )


def _read_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode("ascii")).decode()
    except (binascii.Error, ValueError):
        raise RequestError(
            400, "the pagination token is not one of ours", hint="start without it"
        ) from None


def _values(item: Item) -> list[float]:
    return [] if item.vector is None else [float(value) for value in item.vector]


def _metadata(item: Any) -> dict[str, Any]:
    """Return the metadata with the text, which items store separately and may be newer."""
    is_text = isinstance(item.metadata.get("text", ""), str)
    text = {"text": item.text} if item.text and is_text else {}
    return {**item.metadata, **text}
