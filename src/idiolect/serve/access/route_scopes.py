"""Which scope of a key each route needs."""

from __future__ import annotations

__all__ = ["OPEN", "scope_of"]

OPEN = ""
"""The scope of routes that need no key."""
_EXACT = {
    "/": OPEN,
    "/health": OPEN,
    "/ready": OPEN,
    "/openapi.json": OPEN,
    "/metrics": "metrics",
    "/encode": "encode",
    "/rerank": "encode",
    "/v1/rerank": "encode",
    "/v2/rerank": "encode",
    "/v1/embeddings": "encode",
    "/v1/completions": "generate",
    "/v1/chat/completions": "generate",
    "/vectors/upsert": "write",
    "/vectors/update": "write",
    "/vectors/delete": "write",
    "/items": "write",
    "/items/delete": "write",
}
_ANY = ("/info", "/v1/models")
"""Routes for which any valid key is enough."""


def scope_of(method: str, path: str) -> str | None:
    """Return the scope that a route needs; None if any valid key is enough."""
    if path.startswith("/static/"):
        return OPEN
    if path in _ANY or path.startswith("/v1/models/"):
        return None
    if path.startswith("/items/") and path != "/items/delete":
        return "search" if method in ("GET", "HEAD") else "write"
    if path == "/items" and method in ("GET", "HEAD"):
        return "search"
    return _EXACT.get(path, "search")
