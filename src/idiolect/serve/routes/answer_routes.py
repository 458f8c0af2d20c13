"""`/answer`: answers from the index, with sources."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

from fastapi import APIRouter, Response

from idiolect.search.answers.answer import Answer
from idiolect.search.answers.writers import LocalWriter
from idiolect.serve.bodies.answer_bodies import AnswerBody, AnsweredBody
from idiolect.serve.event_stream import STREAMED, EventStream, started
from idiolect.serve.json_response import JsonResponse
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.service import Serving
from idiolect.serve.work.text_writer import TextWatch, WatchedGenerator

__all__ = ["answer", "router"]

router = APIRouter(tags=["search"])


@router.post(
    "/answer",
    response_model=AnsweredBody,
    responses=STREAMED,
    summary="Answer a question, with sources",
)
async def answer(body: AnswerBody, service: Serving) -> Response:
    """Answer from the items that are found; every citation is a part of one.

    With `--generator`, that model writes the answer; otherwise it consists of sentences of the
    items. A stream sends `{"piece": …}` for each sentence, and at last the whole answer.
    """
    with service.using() as parts:
        index = parts.need("index")
        if not body.stream:

            def whole(watch: TextWatch) -> Answer:
                found: Answer = index.answer(
                    body.question, body.top_k, **_options(parts, body, watch)
                )
                return found

            return JsonResponse((await service.writer.run(whole)).as_json())

        def pieces(watch: TextWatch) -> Iterator[str | Answer]:
            options = _options(parts, body, watch)
            with index.answer(body.question, body.top_k, stream=True, **options) as stream:
                for piece in stream:
                    watch.check()
                    yield piece
                yield stream.result

        texts = service.writer.pieces(pieces)
        values = await started(texts)

    async def events() -> AsyncGenerator[dict[str, Any], None]:
        with service.using():
            async for one in values:
                yield {"piece": one} if isinstance(one, str) else one.as_json()

    return EventStream(events(), texts)


def _options(parts: ServedParts, body: AnswerBody, watch: TextWatch) -> dict[str, Any]:
    """Return the options of `Index.answer`; this loads the model, so call it in a thread."""
    options: dict[str, Any] = {
        "mode": body.mode if parts.encoder is not None else "lexical",
        "filter": body.filter,
        "namespace": body.namespace,
        "min_confidence": body.min_confidence,
        "max_new_tokens": min(body.max_new_tokens, parts.settings.max_new_tokens),
    }
    if parts.settings.generator is not None and parts.generator is not None:
        watched: Any = WatchedGenerator(parts.generator, watch)
        options["model"] = LocalWriter(watched)
    if parts.reranker is not None:
        options["rerank"] = parts.reranker.score
    return options
