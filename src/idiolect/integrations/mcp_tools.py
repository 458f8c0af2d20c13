"""A Model Context Protocol server over an index: tools that an assistant may call.

By default they only read. With `writable`, items can also be added and deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from idiolect import __version__
from idiolect.errors import IdiolectError, InputError
from idiolect.search.items import Item

if TYPE_CHECKING:
    from idiolect.search.index import Index
    from idiolect.search.items import Hits

__all__ = ["make_server"]

_Count = Annotated[int, Field(ge=1, le=100, description="Number of results.")]
_Name = Annotated[str, Field(min_length=1, max_length=512, description="Id of an item.")]
_Query = Annotated[str, Field(min_length=1, max_length=10_000, description="What to look for.")]
_SHOWN = 2_000
"""Maximum characters of a text in a result list; `get` returns the whole text."""


def make_server(index: Index, *, writable: bool = False) -> MCPServer:
    """Return a server whose tools use an open index.

    Args:
        index: The index.
        writable: Whether to offer `add` and `delete`.
    """
    server = MCPServer(
        "idiolect",
        version=__version__,
        instructions=f"Searches a collection of {len(index):,} items by words and by meaning.",
    )

    @server.tool()
    @_explained()
    def search(
        query: _Query,
        top_k: _Count = 10,
        mode: Literal["hybrid", "dense", "lexical"] = "hybrid",
        filter: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Find items. Filters are conditions on metadata, such as {"price": {"$lt": 100}}."""
        return _records(index.search(query, top_k, mode, filter=filter))

    @server.tool()
    @_explained()
    def similar(id: _Name, top_k: _Count = 10) -> list[dict[str, Any]]:
        """Find the items most similar to one of the collection."""
        return _records(index.similar(id, top_k))

    @server.tool()
    @_explained()
    def get(id: _Name) -> dict[str, Any]:
        """Return an item with its whole text and its metadata."""
        item = index.get(id)
        if item is None:
            raise InputError(f"there is no item {id!r}", hint="search returns ids")
        return {"id": item.id, "text": item.text, "metadata": dict(item.metadata)}

    if writable:

        @server.tool()
        @_explained()
        def add(
            id: _Name,
            text: Annotated[str, Field(max_length=1_000_000)],
            metadata: dict[str, Any] | None = None,
        ) -> str:
            """Add an item, or replace the one with the same id."""
            if not text.strip() or index.add([Item(id, text, metadata or {})])["empty"]:
                raise InputError(f"the text of {id!r} is empty; it is not stored", hint="add words")
            return "stored"

        @server.tool()
        @_explained()
        def delete(id: _Name) -> str:
            """Delete an item."""
            if id not in index:
                raise InputError(f"there is no item {id!r}", hint="search returns ids")
            index.delete([id])
            return "deleted"

    return server


@contextmanager
def _explained() -> Iterator[None]:
    """Return the reason of a failed call to the assistant, but no text of other exceptions."""
    try:
        yield
    except IdiolectError as error:
        raise ToolError(str(error)) from error


def _records(hits: Hits) -> list[dict[str, Any]]:
    return [
        {
            "id": hit.id,
            "score": round(hit.score, 4),
            "text": hit.text[:_SHOWN],
            "metadata": dict(hit.metadata),
        }
        for hit in hits
    ]
