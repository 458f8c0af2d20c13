"""`JsonResponse`: JSON that is valid for any text."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

__all__ = ["JsonResponse", "json_bytes"]


def json_bytes(value: Any) -> bytes:
    r"""Return JSON in UTF-8; unpaired surrogates, which UTF-8 cannot encode, are escaped.

    >>> json_bytes({"text": "é\ud800"})
    b'{"text":"\xc3\xa9\\ud800"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


class JsonResponse(Response):
    """A response with JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json_bytes(content)
