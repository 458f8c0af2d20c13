"""Error responses, with one body for the clients of OpenAI, Cohere and Pinecone.

    {"error": {"message", "type", "hint", "param", "code"}, "message", "code", "details": []}

OpenAI's client reads `error`, Cohere's `message`, Pinecone's `message` and `code`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from idiolect.errors import (
    CheckpointError,
    IdiolectError,
    MissingDependencyError,
    OfflineError,
    VerificationError,
)
from idiolect.search.store.ledger import LedgerBusyError
from idiolect.serve.json_response import JsonResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ERROR_RESPONSES",
    "ErrorBody",
    "ErrorDetail",
    "NoItemError",
    "OverloadedError",
    "RequestError",
    "error_response",
    "response_of",
]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "method_not_allowed",
    408: "timeout_error",
    413: "request_too_large",
    415: "unsupported_media_type",
    422: "validation_error",
    429: "overloaded_error",
    501: "not_available_error",
    503: "unavailable_error",
    504: "timeout_error",
}
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 429: 8, 501: 12, 503: 14, 504: 4}
"""gRPC status codes, which Pinecone's errors contain."""
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (LedgerBusyError, 503),
    (CheckpointError, 503),  # a file is missing or being replaced
    (OfflineError, 503),
    (MissingDependencyError, 501),
    (VerificationError, 500),
    (IdiolectError, 400),
)


class ErrorDetail(BaseModel):
    """What is wrong, and what to do."""

    message: str
    type: str
    hint: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error."""

    error: ErrorDetail
    message: str
    code: int
    details: list[str]


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": kind.replace("_", " ").capitalize()}
    for status, kind in _TYPES.items()
    if status != 405
}
"""The errors of every route, for OpenAPI."""


class RequestError(IdiolectError):
    """A request that cannot be served, with the status of its response.

    Args:
        status: The HTTP status.
        message: What is wrong.
        hint: What to do.
        retry_after: Seconds after which to retry, for 429 and 503.
    """

    def __init__(
        self, status: int, message: str, *, hint: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.retry_after = status, retry_after


class OverloadedError(RequestError):
    """A queue is full: 429, with the seconds until there is room."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(429, message, hint="try again later", retry_after=retry_after)


class NoItemError(RequestError):
    """The index has no item with an id: 404."""

    def __init__(self, id: str) -> None:
        super().__init__(404, f"no item {id!r}", hint="check the id and the namespace")


def error_response(
    status: int,
    message: str,
    *,
    hint: str = "",
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JsonResponse:
    """Return the response for an error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    error = {"message": message, "type": kind, "hint": hint, "param": param, "code": None}
    body = {
        "error": error,
        "message": f"{message} ({hint})" if hint else message,
        "code": _RPC_CODES.get(status, 13 if status >= 500 else 3),
        "details": [],
    }
    return JsonResponse(body, status_code=status, headers=dict(headers or {}))


def response_of(error: Exception) -> JsonResponse:
    """Return the response for an exception; an unknown one is a 500 without its message."""
    if isinstance(error, RequestError):
        headers = {}
        if error.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        return error_response(error.status, error.message, hint=error.hint, headers=headers)
    for kind, status in _STATUS:
        if isinstance(error, kind):
            given: Any = error
            headers = {"Retry-After": "1"} if status == 503 else {}
            return error_response(status, given.message, hint=given.hint, headers=headers)
    return error_response(500, "the server failed", hint="its log has the reason")
