"""Bodies of OpenAI's routes. Unknown fields are ignored, since clients send many."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AnswerMessage",
    "ChatBody",
    "ChatChoice",
    "ChatResponse",
    "CompletionBody",
    "CompletionChoice",
    "CompletionResponse",
    "ContentPart",
    "EmbeddingBody",
    "EmbeddingUsage",
    "EmbeddingsBody",
    "EmbeddingsResponse",
    "MessageBody",
    "ModelBody",
    "ModelsBody",
    "ResponseFormat",
    "StreamOptions",
    "TokenId",
    "UsageBody",
]

TokenId = Annotated[int, Field(ge=0, le=1 << 31)]
_Text = Annotated[str, Field(max_length=1 << 20)]
_Ids = Annotated[list[TokenId], Field(min_length=1, max_length=1 << 17)]
_Texts = Annotated[list[_Text], Field(min_length=1)]
_IdLists = Annotated[list[_Ids], Field(min_length=1)]
_Name = Annotated[str | None, Field(max_length=256)]
_Stop = Annotated[str, Field(min_length=1, max_length=256)]
_Stops = Annotated[list[_Stop], Field(max_length=16)]


class _OpenAiBody(BaseModel):
    model_config = ConfigDict(
        extra="ignore", allow_inf_nan=False, strict=True, protected_namespaces=()
    )


class EmbeddingsBody(_OpenAiBody):
    """Texts, or lists of ids of the model's own tokenizer."""

    input: _Text | _Texts | _Ids | _IdLists = Field(examples=["a red lamp"])
    model: _Name = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=65536)] | None = None
    prompt_name: _Name = Field(None, description="Such as query or document; not of OpenAI.")
    user: str | None = None


class EmbeddingBody(BaseModel):
    """One vector: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Numbers of tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the texts."""

    object: Literal["list"] = "list"
    model: str
    data: list[EmbeddingBody]
    usage: EmbeddingUsage


class StreamOptions(BaseModel):
    """What a stream holds beside the text."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class _WritingBody(_OpenAiBody):
    model: _Name = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stop: _Stop | _Stops | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None


class CompletionBody(_WritingBody):
    """Texts to continue, or their ids."""

    prompt: _Text | _Texts | _Ids | _IdLists = Field(examples=["The capital of France is"])
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None


class ContentPart(BaseModel):
    """A part of a message; only texts can be read."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text"]
    text: _Text


class MessageBody(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: _Text | Annotated[list[ContentPart], Field(max_length=256)]


class ResponseFormat(BaseModel):
    """What the answer must be; a JSON schema needs the package llguidance."""

    model_config = ConfigDict(extra="ignore", strict=True)

    type: Literal["text", "json_schema"]
    json_schema: dict[str, Any] | None = None


class ChatBody(_WritingBody):
    """A conversation to answer."""

    messages: list[MessageBody] = Field(
        min_length=1,
        max_length=1024,
        examples=[[{"role": "user", "content": "What is an array?"}]],
    )
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None


class UsageBody(BaseModel):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChoice(BaseModel):
    """A continuation."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"] | None


class CompletionResponse(BaseModel):
    """Continuations; in a stream, a piece of one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageBody | None = None


class AnswerMessage(BaseModel):
    """The message of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    """An answer."""

    index: int
    message: AnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"] | None


class ChatResponse(BaseModel):
    """Answers. A stream has `chat.completion.chunk` objects with a `delta` instead."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageBody | None = None


class ModelBody(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelsBody(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelBody]
