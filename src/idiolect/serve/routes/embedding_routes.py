"""`/v1/embeddings` and `/encode`: vectors of texts."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from idiolect.encoding.text_reader import EncodingCounts
from idiolect.serve.bodies.openai_bodies import EmbeddingsBody, EmbeddingsResponse
from idiolect.serve.bodies.text_bodies import EncodeBody, VectorsBody
from idiolect.serve.http_errors import RequestError
from idiolect.serve.json_response import json_bytes
from idiolect.serve.service import Service, Serving
from idiolect.serve.work.served_encoder import ServedEncoder

__all__ = ["embeddings", "encode", "encode_texts", "router"]

router = APIRouter(tags=["vectors"])
_SHORT = 4096
"""Shorter texts are tokenized in the event loop: a thread would take longer."""


@router.post("/v1/embeddings", response_model=EmbeddingsResponse, summary="Embed texts (OpenAI)")
async def embeddings(body: EmbeddingsBody, service: Serving) -> Response:
    """Return the vectors of a text, of several, or of lists of ids."""
    with service.using() as parts:
        parts.check_model(body.model)
        encoder: ServedEncoder = parts.need("encoder")
        texts, ids = _inputs(body.input)
        counts = EncodingCounts()
        if ids is not None:
            _check_number(len(ids), service)
            rows = await asyncio.to_thread(encoder.read_ids, ids, counts)
            vectors = encoder.shorten(
                await asyncio.wrap_future(encoder.submit(rows)), body.dimensions
            )
        else:
            vectors = await encode_texts(
                service, encoder, texts, body.prompt_name, body.dimensions, counts
            )
        name = parts.model_name
    start = b'{"object":"list","model":' + json_bytes(name) + b',"data":['
    usage = {"prompt_tokens": counts.tokens, "total_tokens": counts.tokens}
    end = b'],"usage":' + json_bytes(usage) + b"}"
    as_base64 = body.encoding_format == "base64"
    content = await _written(vectors, as_base64=as_base64)
    return Response(start + content + end, media_type="application/json")


@router.post("/encode", response_model=VectorsBody, summary="Embed texts")
async def encode(body: EncodeBody, service: Serving) -> Response:
    """Return the vectors of texts."""
    with service.using() as parts:
        encoder: ServedEncoder = parts.need("encoder")
        vectors = await encode_texts(
            service, encoder, body.texts, body.prompt_name, body.dimensions, EncodingCounts()
        )
    rows = await asyncio.to_thread(lambda: b",".join(_numbers(row) for row in vectors))
    return Response(b'{"vectors":[' + rows + b"]}", media_type="application/json")


async def encode_texts(
    service: Service,
    encoder: ServedEncoder,
    texts: Sequence[str],
    prompt_name: str | None,
    dimensions: int | None,
    counts: EncodingCounts,
) -> NDArray[np.float32]:
    """Encode texts in batches that all requests share.

    Raises:
        RequestError: There are too many texts, or the queue is full.
        InputError: As in `Encoder.encode`.
    """
    _check_number(len(texts), service)
    encoder.shorten(np.zeros((0, encoder.dimensions), np.float32), dimensions)  # before the work
    if sum(map(len, texts)) <= _SHORT:
        rows = encoder.read(texts, prompt_name, counts)
    else:
        rows = await asyncio.to_thread(encoder.read, texts, prompt_name, counts)
    return encoder.shorten(await asyncio.wrap_future(encoder.submit(rows)), dimensions)


def _check_number(count: int, service: Service) -> None:
    limit = service.settings.max_texts
    if count > limit:
        raise RequestError(413, f"{count:,} texts; at most {limit:,}", hint="send them in parts")


def _inputs(given: Any) -> tuple[list[str], list[list[int]] | None]:
    """Return texts, or lists of ids."""
    if isinstance(given, str):
        return [given], None
    if isinstance(given[0], str):
        return given, None
    return [], ([given] if isinstance(given[0], int) else given)


async def _written(vectors: NDArray[np.float32], *, as_base64: bool) -> bytes:
    def write() -> bytes:
        return b",".join(
            b'{"object":"embedding","index":%d,"embedding":%s}' % (number, text(row))
            for number, row in enumerate(vectors)
        )

    text = _base64 if as_base64 else _numbers
    return write() if len(vectors) <= 4 else await asyncio.to_thread(write)


def _base64(row: NDArray[np.float32]) -> bytes:
    return b'"' + base64.b64encode(row.astype("<f4").tobytes()) + b'"'


def _numbers(row: NDArray[np.float32]) -> bytes:
    """Return a row as JSON with nine digits, which represent float32 exactly."""
    return ("[" + ",".join(["%.9g"] * len(row)) % tuple(row.tolist()) + "]").encode()
