"""The request log: one JSON object per line on standard error, by default without texts."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

__all__ = ["log_to", "request_logger"]

request_logger = logging.getLogger("idiolect.serve.requests")
"""Logs a line for each request; its fields are passed as `extra={"fields": {...}}`."""


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line of JSON."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
        }
        fields = getattr(record, "fields", None)
        line |= fields if fields else {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)  # escapes line breaks and surrogates


def log_to(stream: Any = None) -> None:
    """Send all logs of this process to a stream, by default standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("idiolect").setLevel(logging.INFO)
