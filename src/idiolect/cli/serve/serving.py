"""`idiolect serve`: an HTTP server over a run, an index or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["serve"]


def serve(
    run: Annotated[
        str, typer.Argument(help="Folder of a run, an index or a model; or the name of a model.")
    ],
    port: Annotated[int, typer.Option(help="Port.", min=0, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    encoder: Annotated[
        str | None, typer.Option(help="Encoder, if not the one that the index names.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="Language model for completions, chat and answers.")
    ] = None,
    reranker: Annotated[str | None, typer.Option(help="Cross-encoder for /rerank.")] = None,
    recommender: Annotated[
        Path | None, typer.Option(help="Folder that `idiolect recommend train` wrote.")
    ] = None,
) -> None:
    """Serve search, vectors, texts and a page over HTTP.

    Example: [bold]idiolect serve runs/demo --port 8000[/bold]
    """
    from idiolect.serve.serve_settings import ServeSettings
    from idiolect.serve.server import serve as run_server

    settings = ServeSettings(
        path=run,
        encoder=encoder,
        generator=generator,
        reranker=reranker,
        recommender=None if recommender is None else str(recommender),
    )
    run_server(settings, host=host, port=port)
