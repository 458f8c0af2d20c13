"""`/health`, `/ready`, `/info`, the page and the report."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse

from idiolect import __version__
from idiolect.search.passages import PassageNamespace
from idiolect.serve.hit_details import field_values
from idiolect.serve.http_errors import RequestError
from idiolect.serve.json_response import JsonResponse
from idiolect.serve.page_files import PAGE_HEADERS, REPORT_HEADERS, STATIC
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.service import Serving
from idiolect.serve.work.served_encoder import ServedEncoder

__all__ = ["health", "info", "metrics", "page", "ready", "report", "router"]

router = APIRouter(tags=["server"])


@router.get("/health", summary="Whether the process answers")
async def health() -> JsonResponse:
    """Answer as long as the process does."""
    return JsonResponse({"status": "ok", "version": __version__})


@router.get("/ready", summary="Whether requests are accepted")
async def ready(service: Serving) -> JsonResponse:
    """Answer 503 while the server shuts down."""
    if service.stopping.is_set():
        raise RequestError(503, "the server is shutting down", retry_after=5)
    return JsonResponse({"status": "ready"})


@router.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
async def metrics(service: Serving) -> Response:
    """Return requests, queues, batches and what models do."""
    service.update_gauges()
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/info", summary="What is served")
async def info(service: Serving) -> JsonResponse:
    """Describe what is served, and which routes can be used."""
    with service.using() as parts:
        return JsonResponse(await asyncio.to_thread(_info, parts))


def _info(parts: ServedParts) -> dict[str, Any]:
    index, encoder = parts.index, parts.encoder
    modes = ["lexical", "dense", "hybrid"] if encoder is not None else ["lexical"]
    return {
        "run": parts.model_name,
        "kind": parts.folder.kind,
        "version": __version__,
        "items": 0 if index is None else sum(PassageNamespace.item_counts(index.store).values()),
        "modes": [] if index is None else modes,
        "dimensions": encoder.dimensions if encoder is not None else None,
        "model": parts.model_name,
        "max_length": _max_length(encoder),
        "abilities": parts.abilities,
        "fields": {} if index is None else field_values(index),
        "systems": parts.systems,
    }


def _max_length(encoder: ServedEncoder | None) -> int | None:
    """Return the maximum tokens of a text; None if there is no limit (static encoder)."""
    return None if encoder is None or encoder.max_length >= 1 << 30 else encoder.max_length


@router.get("/", include_in_schema=False)
async def page() -> Response:
    """Return the page."""
    return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)


@router.get("/report", include_in_schema=False)
async def report(service: Serving) -> Response:
    """Return the run's report."""
    with service.using() as parts:
        path = parts.folder.report
        if path is None:
            raise RequestError(404, "there is no report", hint="serve a run")
        text = await asyncio.to_thread(path.read_text, encoding="utf-8")
        return HTMLResponse(text, headers=REPORT_HEADERS)
