"""`ServeSettings`: what a server serves, and its limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from idiolect.errors import ConfigError

__all__ = ["ServeSettings"]


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of a server.

    Raises:
        ConfigError: A limit is not positive.
    """

    path: str
    """The folder of a run, an index, an encoder or a language model; or the name of a model."""
    encoder: str | None = None
    """The encoder; by default the one whose location the index stores."""
    generator: str | None = None
    """A language model for completions, chat and answers; by default that of the run."""
    reranker: str | None = None
    """A cross-encoder for `/rerank`; by default the cosine of the encoder's vectors."""
    recommender: str | None = None
    """The folder of a recommender."""
    api_key_hashes: tuple[str, ...] = ()
    """Hashes of keys with every scope; see `idiolect.serve.access.api_keys`."""
    keys: str | None = None
    """A file with the hashes of keys, which is read again when it changes."""
    cors_origins: tuple[str, ...] = ()
    """CORS: other origins whose pages may call the server; by default none."""
    read_only: bool = False
    """Reject requests that write to the index."""
    log_texts: bool = False
    """Log queries and texts."""

    max_body: int = 8 << 20
    """Maximum bytes of a request body."""
    max_texts: int = 2048
    """Maximum number of texts per request."""
    tokens_per_batch: int = 4096
    """Maximum tokens (with padding) per batch of the encoder."""
    max_waiting_tokens: int = 1 << 19
    """Maximum tokens in the encoder's queue; above it, requests are rejected with 429."""
    max_waiting_requests: int = 512
    """Maximum requests in the queue of the index, or of the encoder."""
    generations: int = 16
    """Maximum texts generated at the same time, in one batch if the KV cache is paged."""
    text_tokens: int = 1 << 14
    """Capacity of the KV cache in tokens; see `Generator.share`."""
    max_waiting_generations: int = 16
    max_new_tokens: int = 4096
    """Maximum new tokens of one text."""
    rate_limit: int = 0
    """Requests per minute for each key (or address, without keys); 0 for no limit."""
    body_timeout: float = 20.0
    """Timeout in seconds for receiving a request."""
    reading_timeout: float = 60.0
    """Timeout in seconds for a client that reads nothing of its response."""
    request_timeout: float = 60.0
    """Timeout in seconds for a response, except streams."""
    stream_timeout: float = 600.0
    """Timeout in seconds for a generated text."""
    grace_period: float = 10.0
    """Grace period: seconds after SIGTERM until open requests are aborted."""
    reload_seconds: float = 1.0
    """Seconds between checks whether the run was rebuilt or the keys have changed."""
    writer: bool = True
    """Whether this process merges the graphs of the index; only one of several workers does."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and (value < 0 or (value == 0 and name != "rate_limit")):
                raise ConfigError(f"{name} is {value}", hint="use a number above 0")
