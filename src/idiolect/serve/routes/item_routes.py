"""`/items`: add, change, read and delete items, as with `Index`."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path

from idiolect.search.items import Item
from idiolect.serve.bodies.item_bodies import (
    AddBody,
    CountsBody,
    DeletedBody,
    DeleteItemsBody,
    UpdateItemBody,
)
from idiolect.serve.bodies.search_bodies import ItemBody, NamespaceQuery, ReadItemBody
from idiolect.serve.http_errors import NoItemError, RequestError
from idiolect.serve.json_response import JsonResponse
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.service import Serving

__all__ = ["ItemId", "add", "delete", "read", "router", "update"]

router = APIRouter(tags=["items"])
ItemId = Annotated[str, Path(min_length=1, max_length=512)]


@router.post("/items", response_model=CountsBody, summary="Add or replace items")
async def add(body: AddBody, service: Serving) -> JsonResponse:
    """Write items; they are on disk when the response is sent."""
    items = [
        Item(
            one.id,
            one.text,
            one.metadata,
            None if one.vector is None else np.asarray(one.vector, np.float32),
        )
        for one in body.items
    ]
    with service.using() as parts:
        counts = await service.write(_add, parts, items, body.namespace)
    return JsonResponse(counts)


def _add(parts: ServedParts, items: list[Item], namespace: str) -> dict[str, int]:
    names = ("written", "unchanged", "empty", "duplicate", "left_out")
    counts = parts.need("index").add(items, namespace=namespace)
    return {name: counts[name] for name in names}


@router.post("/items/delete", response_model=DeletedBody, summary="Delete items")
async def delete(body: DeleteItemsBody, service: Serving) -> JsonResponse:
    """Delete items by id or by filter; unknown ids are left out."""
    if (body.ids is None) == (body.filter is None):
        raise RequestError(422, "not exactly one of ids and filter is given", hint="pass one")
    with service.using() as parts:
        index = parts.need("index")
        count = await service.write(
            index.delete, body.ids, filter=body.filter, namespace=body.namespace
        )
    return JsonResponse({"deleted": count})


@router.get("/items/{id:path}", response_model=ReadItemBody, summary="Read an item")
async def read(
    id: ItemId, service: Serving, namespace: NamespaceQuery = "", vector: bool = False
) -> JsonResponse:
    """Return an item's text and metadata, and its vector if asked for."""
    with service.using() as parts:
        index = parts.need("index")
        found = await service.searches.run(
            index.store.fetch, [id], namespace=namespace, vectors=vector
        )
    if id not in found:
        raise NoItemError(id)
    given = found[id].vector
    return JsonResponse(_record(found[id]) | ({} if given is None else {"vector": given.tolist()}))


@router.patch("/items/{id:path}", response_model=ItemBody, summary="Change an item")
async def update(
    id: ItemId, body: UpdateItemBody, service: Serving, namespace: NamespaceQuery = ""
) -> JsonResponse:
    """Change fields of an item; omitted ones stay, and metadata set to null is removed."""
    with service.using() as parts:
        item = await service.write(_update, parts, id, body, namespace)
    return JsonResponse(_record(item))


def _update(parts: ServedParts, id: str, body: UpdateItemBody, namespace: str) -> Item:
    index = parts.need("index")
    if id not in index.store.fetch([id], namespace=namespace):
        raise NoItemError(id)
    index.update(
        id, text=body.text, metadata=body.metadata, vector=body.vector, namespace=namespace
    )
    found: Item = index.store.fetch([id], namespace=namespace)[id]
    return found


def _record(item: Item) -> dict[str, Any]:
    return {"id": item.id, "text": item.text, "metadata": item.metadata}
