"""`idiolect serve`: an HTTP server over a run, an index or a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from idiolect.errors import MissingDependencyError

__all__ = ["serve"]


def serve(
    run: Annotated[
        str, typer.Argument(help="Folder of a run, an index or a model; or the name of a model.")
    ],
    port: Annotated[int, typer.Option(help="Port; 0 for any free one.", min=0, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all interfaces.")
    ] = "127.0.0.1",
    encoder: Annotated[
        str | None, typer.Option(help="Encoder, instead of the one that the index names.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="Language model for completions, chat and answers.")
    ] = None,
    reranker: Annotated[
        str | None, typer.Option(help="Cross-encoder for /rerank. Default: cosine of vectors.")
    ] = None,
    recommender: Annotated[
        Path | None, typer.Option(help="Folder that `idiolect recommend train` wrote.")
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(help="Key with every scope; repeatable. Also from IDIOLECT_API_KEY."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of `idiolect keys`, reloaded when it changes.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes; each loads the model.", min=1, max=64)
    ] = 1,
    read_only: Annotated[bool, typer.Option("--read-only", help="Reject changes.")] = False,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Allowed CORS origin; repeatable.")
    ] = None,
    rate_limit: Annotated[
        int,
        typer.Option(help="Requests per minute per key or address; 0: no limit.", min=0, max=10**9),
    ] = 0,
    max_body: Annotated[
        int, typer.Option(help="Maximum bytes of a request.", min=1024, max=1 << 30)
    ] = 8 << 20,
    tokens_per_batch: Annotated[
        int, typer.Option(help="Maximum tokens per batch of the encoder.", min=1, max=1 << 20)
    ] = 4096,
    max_waiting_requests: Annotated[
        int, typer.Option(help="Maximum queued requests; more are rejected.", min=1, max=100_000)
    ] = 512,
    generations: Annotated[
        int, typer.Option(help="Texts generated together, in one batch.", min=1, max=64)
    ] = 16,
    text_tokens: Annotated[
        int,
        typer.Option(
            help="Tokens of prompts and texts in the language model's cache.",
            min=1,
            max=1 << 24,
        ),
    ] = 1 << 14,
    timeout: Annotated[
        float,
        typer.Option(
            help="Time limit of a response in seconds, except streams.", min=0.1, max=86_400
        ),
    ] = 60.0,
    grace_period: Annotated[
        float, typer.Option(help="Seconds for open requests at shutdown.", min=1, max=3600)
    ] = 10.0,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Include queries and texts in the log.")
    ] = False,
) -> None:
    """Serve search, vectors, text generation and a web page over HTTP.

    Example: [bold]idiolect serve demo/run --port 8000[/bold], then open http://localhost:8000
    """
    try:
        from idiolect.serve.access.api_keys import hash_key
        from idiolect.serve.serve_settings import ServeSettings
        from idiolect.serve.server import serve as run_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "idiolect":
            raise
        raise MissingDependencyError(
            f"the server needs the package {error.name}", hint="pip install 'idiolect[serve]'"
        ) from None

    given = [*(api_key or ()), *filter(None, [os.environ.get("IDIOLECT_API_KEY")])]
    settings = ServeSettings(
        path=run,
        encoder=encoder,
        generator=generator,
        reranker=reranker,
        recommender=None if recommender is None else str(recommender),
        api_key_hashes=tuple(hash_key(key) for key in given),
        keys=None if keys is None else str(keys),
        cors_origins=tuple(cors_origin or ()),
        read_only=read_only,
        rate_limit=rate_limit,
        max_body=max_body,
        tokens_per_batch=tokens_per_batch,
        max_waiting_requests=max_waiting_requests,
        generations=generations,
        text_tokens=text_tokens,
        request_timeout=timeout,
        grace_period=grace_period,
        log_texts=log_texts,
    )
    if host not in ("127.0.0.1", "localhost", "::1") and not given and keys is None:
        typer.echo(f"anyone who reaches {host} may use it (--api-key requires a key)", err=True)
    run_server(settings, host=host, port=port, workers=workers)
