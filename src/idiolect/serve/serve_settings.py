"""`ServeSettings`: what a server serves, and the bounds of what it accepts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from idiolect.errors import ConfigError

__all__ = ["ServeSettings"]


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of a server.

    Raises:
        ConfigError: A bound is not positive.
    """

    path: str
    """The folder of a run, an index, an encoder or a language model; or the name of a model."""
    encoder: str | None = None
    """The encoder, if not the one that the index names."""
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
    """Origins whose pages may call the server; by default none but its own."""
    read_only: bool = False
    """Refuse to write to the index."""
    log_texts: bool = False
    """Write queries and texts into the log."""

    max_body: int = 8 << 20
    """Bytes of a request."""
    max_texts: int = 2048
    """Texts of one request."""
    tokens_per_batch: int = 4096
    """Tokens, with padding, that the encoder reads at once."""
    max_waiting_tokens: int = 1 << 19
    """Tokens that wait for the encoder; above, requests are refused with 429."""
    max_waiting_requests: int = 512
    """Requests that wait for the index, or for the encoder."""
    generations: int = 16
    """Texts that are written at the same time, in one batch if the network has a cache of pages."""
    text_tokens: int = 1 << 14
    """Tokens of prompts and texts whose keys and values are kept; see `Generator.share`."""
    max_waiting_generations: int = 16
    max_new_tokens: int = 4096
    """Most new tokens of one text."""
    rate_limit: int = 0
    """Requests a minute of a key, or of an address without keys; 0 for any number."""
    body_timeout: float = 20.0
    """Seconds until the whole request must be there."""
    request_timeout: float = 60.0
    """Seconds for one answer, streams aside."""
    stream_timeout: float = 600.0
    """Seconds for a generated text."""
    grace_period: float = 10.0
    """Seconds after SIGTERM until open requests are cut."""
    reload_seconds: float = 1.0
    """How often to look whether the run was rebuilt or the keys changed."""
    writer: bool = True
    """Whether this process merges the graphs of the index; of several workers, one does."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and (value < 0 or (value == 0 and name != "rate_limit")):
                raise ConfigError(f"{name} is {value}", hint="use a number above 0")
