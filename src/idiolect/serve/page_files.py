"""The files of the web page, and headers that restrict its scripts and resources."""

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
    # Only scripts and styles from this server: if the text of an item were interpreted as HTML, it
    # could neither run scripts nor send data elsewhere.
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
"""Headers of the report, which has inline styles and no scripts."""

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class PageFiles(StaticFiles):
    """Static files, which browsers revalidate on each load."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)
        for ending, kind in _TYPES.items():
            mimetypes.add_type(kind, ending)  # a wrong type from the system would block scripts

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the response for a file."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
