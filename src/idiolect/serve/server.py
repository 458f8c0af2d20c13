"""Run the server: uvicorn, and what it lacks."""

from __future__ import annotations

import uvicorn

from idiolect.serve.app import create_app
from idiolect.serve.serve_settings import ServeSettings

__all__ = ["serve"]


def serve(settings: ServeSettings, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        create_app(settings),
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=int(settings.grace_period),
    )
    uvicorn.Server(config).run()
