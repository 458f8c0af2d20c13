"""`create_app`: the FastAPI application."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from idiolect import __version__
from idiolect.errors import IdiolectError
from idiolect.serve.access.gate import Gate
from idiolect.serve.http_errors import ERROR_RESPONSES, error_response, response_of
from idiolect.serve.json_response import JsonResponse
from idiolect.serve.page_files import PageFiles
from idiolect.serve.routes import (
    answer_routes,
    completion_routes,
    embedding_routes,
    item_routes,
    pinecone_routes,
    rerank_routes,
    search_routes,
    status_routes,
    text_routes,
)
from idiolect.serve.serve_settings import ServeSettings
from idiolect.serve.service import Service

__all__ = ["create_app"]

_ROUTES = (
    status_routes,
    search_routes,
    item_routes,
    embedding_routes,
    rerank_routes,
    text_routes,
    answer_routes,
    completion_routes,
    pinecone_routes,
)


def create_app(settings: ServeSettings) -> FastAPI:
    """Return the application of a server.

    Args:
        settings: The settings of the server.

    Raises:
        IdiolectError: There is nothing to serve, or it cannot be loaded.
    """
    service = Service(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch())
        yield
        watching.cancel()
        service.close()

    # No interactive API documentation: its scripts would be loaded from another server.
    app = FastAPI(
        title="idiolect", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    for routes in _ROUTES:
        app.include_router(routes.router, responses=ERROR_RESPONSES)
    app.mount("/static", PageFiles(), name="static")
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PATCH"],
            allow_headers=["Authorization", "Api-Key", "Content-Type"],
        )
    app.add_middleware(Gate, settings=settings, keys=service.keys, metrics=service.metrics)
    app.add_exception_handler(IdiolectError, _failed)
    app.add_exception_handler(Exception, _failed)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    return app


async def _failed(request: Request, error: Exception) -> JsonResponse:
    return response_of(error)


async def _invalid(request: Request, error: Any) -> JsonResponse:
    """Respond to an invalid request: 400 if the body is not JSON, otherwise 422."""
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":
        reason = errors[0].get("ctx", {}).get("error", "")
        return error_response(400, f"the body is not JSON: {reason}", hint="send a JSON object")
    fields: dict[Any, list[Any]] = {}
    for one in errors:
        fields.setdefault(one["loc"][:2], []).append(one)
    first, *more = fields.values()
    # A field of several types has an error for each. The type that was meant is the one whose error
    # lies deepest, or is not about the type itself.
    best = max(first, key=lambda one: (len(one["loc"]), not one["type"].endswith("_type")))
    types = re.compile(r"constrained-|.*\[")  # how pydantic names the types in a location
    parts = [str(part) for part in best["loc"][1:]]
    where = ".".join(part for part in parts if not types.match(part)) or "body"
    message = f"{where}: {best['msg']}" + (f" (and {len(more)} more)" if more else "")
    return error_response(422, message, hint="see /openapi.json", param=where)


async def _refused(request: Request, error: Any) -> JsonResponse:
    hints = {
        400: "send a JSON object in UTF-8, not nested deeply and without huge numbers",
        404: "see /openapi.json for the routes",
        405: "see /openapi.json for the methods",
    }
    headers = dict(getattr(error, "headers", None) or {})
    if error.status_code == 405:  # Starlette names the methods of one route only
        template = re.sub(r":\w+}", "}", getattr(request.scope.get("route"), "path", ""))
        methods = request.app.openapi()["paths"].get(template, {})
        headers |= {"Allow": ", ".join(sorted(map(str.upper, methods)))} if methods else {}
    hint = hints.get(error.status_code, "")
    return error_response(error.status_code, str(error.detail), hint=hint, headers=headers)
