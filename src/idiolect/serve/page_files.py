"""The files of the page, and the headers that keep it from running or loading anything else."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

__all__ = ["PAGE_HEADERS", "REPORT_HEADERS", "STATIC", "PageFiles"]

STATIC = Path(__file__).parent / "static"
"""The folder of the page."""

PAGE_HEADERS = {
    # Scripts and styles from this server's files alone: an item's text that came to be read as HTML
    # could neither run nor call home.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Headers of the page."""

REPORT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Headers of the report, whose style is within it. It has no scripts."""

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class PageFiles(StaticFiles):
    """The files, each checked for a newer version whenever the page is loaded."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)
        for ending, kind in _TYPES.items():
            mimetypes.add_type(kind, ending)  # a system may say otherwise; scripts would not run

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the response for a file."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
