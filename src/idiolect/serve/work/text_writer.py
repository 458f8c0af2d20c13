"""`TextWriter`: text generation for requests, with streaming and cancellation.

Each request uses a thread of a pool, and the texts of all requests are generated in one running
batch (`Generator.share`). Before each token, cancellation is checked: a text ends when its client
has disconnected, when its time is up, or when the server shuts down.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from idiolect.serve.http_errors import RequestError
from idiolect.serve.work.work_pool import WorkPool

if TYPE_CHECKING:
    from prometheus_client import Counter
    from torch import Tensor

    from idiolect.generate.generation import Generation
    from idiolect.generate.generator import Generator
    from idiolect.generate.logits_processors import WrittenRow
    from idiolect.generate.text_stream import TextStream
    from idiolect.serve.serve_settings import ServeSettings
    from idiolect.serve.server_metrics import ServerMetrics

__all__ = ["TextWatch", "TextWriter", "WatchedGenerator", "WritingEndedError"]

_T = TypeVar("_T")


class WritingEndedError(RequestError):
    """A text was cancelled: its client has disconnected, or its time is up."""


class TextWatch:
    """Ends a text between two tokens, and counts these.

    It is a logits processor that does not change scores.

    Args:
        stopping: Set when the server shuts down.
        seconds: Timeout of the text.
        tokens: The counter of all tokens that the language model wrote.
    """

    def __init__(self, stopping: threading.Event, seconds: float, tokens: Counter) -> None:
        self.left = threading.Event()
        """Set when the client no longer waits for the text."""
        self._stopping, self._until = stopping, time.monotonic() + seconds
        self._tokens = tokens

    def __call__(self, scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        """Return the scores unchanged; see `check`."""
        self.check()
        self._tokens.inc(len(rows))
        return scores

    def check(self) -> None:
        """Raise an error if the text should end.

        Raises:
            WritingEndedError: The text should end.
        """
        if self.left.is_set():
            raise WritingEndedError(503, "the client left")
        if self._stopping.is_set():
            raise WritingEndedError(503, "the server is shutting down", retry_after=5)
        if time.monotonic() > self._until:
            raise WritingEndedError(504, "the text took too long", hint="ask for fewer tokens")


class WatchedGenerator:
    """A generator whose texts can be cancelled, for code that takes a generator.

    Args:
        generator: The generator.
        watch: Ends its texts.
    """

    def __init__(self, generator: Generator, watch: TextWatch) -> None:
        self._generator, self._watch = generator, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def stream(self, prompt: Any, **options: Any) -> TextStream:
        """Continue a prompt in pieces; see `Generator.stream`."""
        return self._generator.stream(prompt, processors=[self._watch], **options)


class TextWriter:
    """Generates texts for several requests.

    Args:
        settings: Limits on concurrent and waiting texts, and the timeout.
        stopping: Set when the server shuts down.
        metrics: The metrics to update.
    """

    def __init__(
        self, settings: ServeSettings, stopping: threading.Event, metrics: ServerMetrics
    ) -> None:
        self._stopping, self._metrics = stopping, metrics
        self._seconds = settings.stream_timeout
        self.pool = WorkPool(
            "language model", settings.generations, settings.max_waiting_generations
        )

    async def run(self, function: Callable[[TextWatch], _T]) -> _T:
        """Run a function that generates texts, and return its result.

        Raises:
            OverloadedError: Too many texts wait.
            WritingEndedError: The time is up, or the server shuts down.
        """
        watch = self._watch()
        try:
            return await self.pool.run(function, watch)
        finally:
            watch.left.set()

    async def pieces(
        self, function: Callable[[TextWatch], Iterator[_T]]
    ) -> AsyncGenerator[_T, None]:
        """Run a function that yields pieces of text, and yield these. Its errors are raised here.

        Raises:
            OverloadedError: Too many texts wait.
        """
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Any]()
        watch, began = self._watch(), time.monotonic()

        def write() -> None:
            for piece in function(watch):
                loop.call_soon_threadsafe(queue.put_nowait, (piece,))

        work = asyncio.ensure_future(self.pool.run(write))
        work.add_done_callback(lambda _: queue.put_nowait(None))
        is_first = True
        try:
            while (piece := await queue.get()) is not None:
                if is_first:
                    self._metrics.first_token.observe(time.monotonic() - began)
                    is_first = False
                yield piece[0]
            await work
        finally:
            watch.left.set()
            work.cancel()

    async def write(
        self, generator: Generator, prompts: Sequence[Any], **options: Any
    ) -> list[Generation]:
        """Continue prompts; see `Generator.generate` and `run`."""

        def write(watch: TextWatch) -> list[Generation]:
            return generator.generate(prompts, processors=[watch], **options)

        return await self.run(write)

    def stream(
        self, generator: Generator, prompt: Any, **options: Any
    ) -> AsyncGenerator[str | Generation, None]:
        """Continue one prompt: yield the pieces of the text, and finally the whole text.

        It ends like a finished text if the time is up or the server shuts down; see `pieces`.
        """

        def write(watch: TextWatch) -> Iterator[str | Generation]:
            stream = generator.stream(prompt, processors=[watch], **options)
            with contextlib.suppress(WritingEndedError):
                yield from stream
            yield stream.generation

        return self.pieces(write)

    def _watch(self) -> TextWatch:
        return TextWatch(self._stopping, self._seconds, self._metrics.new_tokens)

    def close(self) -> None:
        """Drop waiting work."""
        self.pool.close()
