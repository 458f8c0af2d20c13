"""`/v1/completions`, `/v1/chat/completions` and `/v1/models`, compatible with OpenAI."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from idiolect.generate.constrained import Constraint
from idiolect.generate.generation import Generation
from idiolect.generate.generator import Generator
from idiolect.generate.prompts.prompt_ids import prompt_ids
from idiolect.serve.bodies.openai_bodies import (
    ChatBody,
    ChatResponse,
    CompletionBody,
    CompletionResponse,
    MessageBody,
    ModelBody,
    ModelsBody,
)
from idiolect.serve.event_stream import STREAMED, EventStream, started
from idiolect.serve.http_errors import RequestError
from idiolect.serve.json_response import JsonResponse
from idiolect.serve.served_parts import ServedParts
from idiolect.serve.service import Service, Serving

__all__ = ["chat", "complete", "model", "models", "router"]

router = APIRouter(tags=["texts"])
_COMPLETION_TOKENS, _CHAT_TOKENS = 16, 256
"""Default maximum number of new tokens."""
_MAX_PROMPTS = 64
_REASONS = {"end": "stop", "stop": "stop", "length": "length", "context": "length"}


@router.post(
    "/v1/completions",
    response_model=CompletionResponse,
    responses=STREAMED,
    summary="Continue texts",
)
async def complete(body: CompletionBody, service: Serving) -> Response:
    """Continue texts with the language model."""
    with service.using() as parts:
        generator = await _generator(service, parts, body.model)
        prompts = _prompts(body.prompt)
        options = _options(body, body.max_tokens, _COMPLETION_TOKENS, service)
        count = body.n or 1
        if body.stream:
            if len(prompts) > 1 or count > 1 or body.logprobs is not None or body.echo:
                raise RequestError(
                    400,
                    "a stream has one text, without logprobs and echo",
                    hint="send one prompt, or stream=false",
                )
            shape = _Shape("cmpl", "text_completion", parts.model_name)
            texts = service.writer.stream(generator, prompts[0], **options)
            return await _stream(service, shape, texts, generator, prompts[0], _text_piece, body)
        if body.logprobs:
            options["top_logprobs"] = body.logprobs
        found = await service.writer.write(
            generator, prompts, num_return_sequences=count, **options
        )
        name = parts.model_name
    sources = [prompt_ids(generator.model, prompt, n) for n, prompt in enumerate(prompts)]
    choices = []
    for number, one in enumerate(found):
        shown = ""
        if body.echo:
            shown = generator.model.tokenizer.decode(sources[one.prompt])
        logprobs = None if body.logprobs is None else _text_logprobs(generator, one)
        choices.append(
            {
                "index": number,
                "text": shown + one.text,
                "logprobs": logprobs,
                "finish_reason": _REASONS[one.finish_reason],
            }
        )
    shape = _Shape("cmpl", "text_completion", name)
    used = _usage(sum(map(len, sources)), sum(len(one.ids) for one in found))
    return JsonResponse(shape.of(choices, used))


@router.post(
    "/v1/chat/completions",
    response_model=ChatResponse,
    responses=STREAMED,
    summary="Answer a conversation",
)
async def chat(body: ChatBody, service: Serving) -> Response:
    """Answer a conversation in the form of the model's chat template."""
    with service.using() as parts:
        generator = await _generator(service, parts, body.model)
        messages = [_message(one) for one in body.messages]
        prompt = generator.chat_ids(messages)
        tokens = body.max_completion_tokens or body.max_tokens
        options = _options(body, tokens, _CHAT_TOKENS, service)
        format = body.response_format
        if format is not None and format.type == "json_schema":
            schema = (format.json_schema or {}).get("schema")
            if not isinstance(schema, dict):
                raise RequestError(422, "response_format has no schema", hint="see OpenAI's form")
            options["constraint"] = Constraint.json_schema(generator, schema)
        count = body.n or 1
        if body.stream:
            if count > 1 or body.logprobs:
                raise RequestError(
                    400, "a stream has one text, without logprobs", hint="send stream=false"
                )
            shape = _Shape("chatcmpl", "chat.completion.chunk", parts.model_name)
            texts = service.writer.stream(generator, prompt, **options)
            return await _stream(service, shape, texts, generator, prompt, _chat_piece, body)
        if body.logprobs:
            options["top_logprobs"] = body.top_logprobs or 0
        found = await service.writer.write(
            generator, [prompt], num_return_sequences=count, **options
        )
        name = parts.model_name
    choices = [
        {
            "index": number,
            "message": {"role": "assistant", "content": one.text},
            "logprobs": _chat_logprobs(generator, one) if body.logprobs else None,
            "finish_reason": _REASONS[one.finish_reason],
        }
        for number, one in enumerate(found)
    ]
    shape = _Shape("chatcmpl", "chat.completion", name)
    used = _usage(len(prompt), sum(len(one.ids) for one in found))
    return JsonResponse(shape.of(choices, used))


@router.get("/v1/models", response_model=ModelsBody, summary="List the models")
async def models(service: Serving) -> JsonResponse:
    """List the model that is served."""
    with service.using() as parts:
        return JsonResponse({"object": "list", "data": [_model(service, parts)]})


@router.get("/v1/models/{name}", response_model=ModelBody, summary="Describe a model")
async def model(name: Annotated[str, Path(max_length=256)], service: Serving) -> JsonResponse:
    """Describe the model that is served."""
    with service.using() as parts:
        parts.check_model(name)
        return JsonResponse(_model(service, parts))


def _model(service: Service, parts: ServedParts) -> dict[str, Any]:
    started = int(service.started)
    return {"id": parts.model_name, "object": "model", "created": started, "owned_by": "idiolect"}


async def _generator(service: Service, parts: ServedParts, name: str | None) -> Generator:
    parts.check_model(name)
    found: Generator = await service.models.run(parts.need, "generator")
    return found


def _prompts(given: Any) -> list[Any]:
    prompts = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    if len(prompts) > _MAX_PROMPTS:
        raise RequestError(
            413, f"{len(prompts)} prompts; at most {_MAX_PROMPTS}", hint="send fewer"
        )
    return list(prompts)


def _message(body: MessageBody) -> dict[str, str]:
    content = body.content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    return {"role": "system" if body.role == "developer" else body.role, "content": text}


def _options(
    body: CompletionBody | ChatBody, tokens: int | None, default: int, service: Service
) -> dict[str, Any]:
    """Return the options of `Generator` for a request."""
    limit = service.settings.max_new_tokens
    tokens = tokens or min(default, limit)
    if tokens > limit:
        raise RequestError(400, f"max_tokens is {tokens:,}; at most {limit:,}", hint="ask for less")
    temperature = 1.0 if body.temperature is None else body.temperature
    stop = body.stop or ()
    options: dict[str, Any] = {
        "max_new_tokens": tokens,
        "stop": (stop,) if isinstance(stop, str) else tuple(stop),
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
    }
    if temperature:
        seed = secrets.randbits(32) if body.seed is None else body.seed % (1 << 32)
        options |= {"do_sample": True, "temperature": temperature, "seed": seed}
        options["top_p"] = 1.0 if body.top_p is None else body.top_p
    elif (body.n or 1) > 1:
        raise RequestError(
            400, "several texts without randomness are equal", hint="set temperature"
        )
    return options


class _Shape:
    """The common fields of a response, or of the chunks of a stream, which share an id."""

    def __init__(self, prefix: str, object: str, model: str) -> None:
        self.frame = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "object": object,
            "created": int(time.time()),
            "model": model,
        }

    def of(
        self, choices: Sequence[dict[str, Any]], usage: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """Return a response."""
        return self.frame | {"choices": list(choices)} | ({"usage": usage} if usage else {})


async def _stream(
    service: Service,
    shape: _Shape,
    texts: AsyncGenerator[str | Generation, None],
    generator: Generator,
    prompt: Any,
    piece: Any,
    body: CompletionBody | ChatBody,
) -> EventStream:
    """Return a stream after its first piece has arrived, so that errors get their HTTP status."""
    wants_usage = body.stream_options is not None and body.stream_options.include_usage
    values = await started(texts)

    async def events() -> AsyncGenerator[dict[str, Any], None]:
        with service.using():
            yield shape.of([piece("", None, is_first=True)])
            async for one in values:
                if isinstance(one, str):
                    yield shape.of([piece(one, None)])
                    continue
                yield shape.of([piece("", _REASONS[one.finish_reason])])
                if wants_usage:
                    count = len(prompt_ids(generator.model, prompt, 0))
                    yield shape.of([], _usage(count, len(one.ids)))

    return EventStream(events(), texts)


def _text_piece(text: str, reason: str | None, *, is_first: bool = False) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def _chat_piece(text: str, reason: str | None, *, is_first: bool = False) -> dict[str, Any]:
    delta: dict[str, str] = {"role": "assistant", "content": ""} if is_first else {"content": text}
    if reason is not None:
        delta = {}
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _usage(prompt: int, new: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def _text_logprobs(generator: Generator, one: Generation) -> dict[str, Any]:
    tokens = [generator.model.tokenizer.decode([id]) for id in one.ids]
    offsets = [sum(map(len, tokens[:n])) for n in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": one.logprobs,
        "top_logprobs": [
            {generator.model.tokenizer.decode([id]): value for id, value in top}
            for top in one.top_logprobs
        ],
        "text_offset": offsets,
    }


def _chat_logprobs(generator: Generator, one: Generation) -> dict[str, Any]:
    def entry(id: int, value: float) -> dict[str, Any]:
        token = generator.model.tokenizer.decode([id], skip_special_tokens=False)
        return {"token": token, "logprob": value, "bytes": list(token.encode())}

    tops = one.top_logprobs or [[] for _ in one.ids]
    return {
        "content": [
            entry(id, value) | {"top_logprobs": [entry(*other) for other in top]}
            for id, value, top in zip(one.ids, one.logprobs, tops, strict=True)
        ],
        "refusal": None,
    }
