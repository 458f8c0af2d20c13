"""Bodies of changes of items."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from idiolect.serve.bodies.search_bodies import (
    CheckedBody,
    Id,
    MetadataFilter,
    NamespaceName,
    Vector,
)

__all__ = [
    "AddBody",
    "CountsBody",
    "DeleteItemsBody",
    "DeletedBody",
    "NewItemBody",
    "UpdateItemBody",
]


class NewItemBody(CheckedBody):
    """An item to add."""

    id: Id = Field(examples=["p9"])
    text: str = Field("", examples=["a green lamp"])
    metadata: dict[str, Any] = Field({}, examples=[{"price": 30}])
    vector: Vector | None = Field(None, description="By default computed from the text.")


class AddBody(CheckedBody):
    """Items to add or replace."""

    items: list[NewItemBody] = Field(min_length=1, max_length=10_000)
    namespace: NamespaceName = ""


class CountsBody(BaseModel):
    """What became of the items; see `Index.add`."""

    written: int
    unchanged: int
    empty: int
    duplicate: int
    left_out: int


class UpdateItemBody(CheckedBody):
    """Fields of an item to change."""

    text: str | None = None
    metadata: dict[str, Any] | None = Field(None, examples=[{"price": 25}])
    vector: Vector | None = None


class DeleteItemsBody(CheckedBody):
    """Items to delete."""

    ids: Annotated[list[Id], Field(max_length=10_000)] | None = None
    filter: MetadataFilter = None
    namespace: NamespaceName = ""


class DeletedBody(BaseModel):
    """How many items were deleted."""

    deleted: int
