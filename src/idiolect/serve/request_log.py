"""The log: one JSON object a line on standard error, without texts unless asked."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

__all__ = ["log_to", "request_logger"]

request_logger = logging.getLogger("idiolect.serve.requests")
"""Receives a line for each request; its fields are in `extra={"fields": {...}}`."""


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
        return json.dumps(line)  # escapes line breaks and what UTF-8 cannot hold


def log_to(stream: Any = None) -> None:
    """Send all logs of this process to a stream, by default standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("idiolect").setLevel(logging.INFO)
