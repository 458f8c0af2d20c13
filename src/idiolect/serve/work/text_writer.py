"""`TextWriter`: texts of a language model, written in threads and sent as they grow.

A text is written in a thread of a small pool. Before each token it looks whether anybody still
waits: it ends when the client has left, when its time is up, and when the server shuts down.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

from idiolect.serve.work.work_pool import WorkPool

if TYPE_CHECKING:
    from torch import Tensor

    from idiolect.generate.generation import Generation
    from idiolect.generate.generator import Generator
    from idiolect.generate.logits_processors import WrittenRow
    from idiolect.serve.serve_settings import ServeSettings
    from idiolect.serve.server_metrics import ServerMetrics

__all__ = ["TextWriter", "WritingEndedError"]


class WritingEndedError(Exception):
    """A text is not finished, and nobody waits for it or its time is up; the reason is its text."""


class _Watch:
    """Ends a text between two tokens. It is a processor of scores that changes none."""

    def __init__(self, stopping: threading.Event, seconds: float) -> None:
        self.left = threading.Event()
        self._stopping, self._until = stopping, time.monotonic() + seconds

    def __call__(self, scores: Tensor, rows: Sequence[WrittenRow]) -> Tensor:
        """Return the scores.

        Raises:
            WritingEndedError: The text is to end.
        """
        if self.left.is_set():
            raise WritingEndedError("the client left")
        if self._stopping.is_set():
            raise WritingEndedError("the server is shutting down")
        if time.monotonic() > self._until:
            raise WritingEndedError("the text took too long")
        return scores


class TextWriter:
    """Writes texts for several requests.

    Args:
        settings: How many at the same time, how many may wait, and for how long.
        stopping: Set when the server shuts down.
        metrics: What to update.
    """

    def __init__(
        self, settings: ServeSettings, stopping: threading.Event, metrics: ServerMetrics
    ) -> None:
        self._stopping, self._metrics = stopping, metrics
        self._seconds = settings.stream_timeout
        self.pool = WorkPool("model", settings.generations, settings.max_waiting_generations)

    async def write(
        self, generator: Generator, prompts: Sequence[Any], **options: Any
    ) -> list[Generation]:
        """Continue prompts; see `Generator.generate`.

        Raises:
            OverloadedError: Too many texts wait.
            WritingEndedError: The time is up, or the server shuts down.
        """
        watch = _Watch(self._stopping, self._seconds)
        try:
            found: list[Generation] = await self.pool.run(
                generator.generate, prompts, processors=[watch], **options
            )
        finally:
            watch.left.set()
        self._metrics.new_tokens.inc(sum(len(one.ids) for one in found))
        return found

    async def stream(
        self, generator: Generator, prompt: Any, **options: Any
    ) -> AsyncGenerator[str | Generation, None]:
        """Continue one prompt: yield the pieces of the text, and at last the whole.

        It ends like a finished text if the time is up or the server shuts down. What is wrong with
        the prompt or the options is raised before the first piece.

        Raises:
            OverloadedError: Too many texts wait.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Any]()
        watch, began = _Watch(self._stopping, self._seconds), time.monotonic()

        def put(value: Any) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, value)

        def write() -> None:
            stream = generator.stream(prompt, processors=[watch], **options)
            try:
                for piece in stream:
                    put(piece)
            except WritingEndedError:
                pass
            put(stream.generation)

        work = asyncio.ensure_future(self.pool.run(write))
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        is_first = True
        try:
            while (piece := await pieces.get()) is not None:
                if is_first:
                    self._metrics.first_token.observe(time.monotonic() - began)
                    is_first = False
                if not isinstance(piece, str):
                    self._metrics.new_tokens.inc(len(piece.ids))
                yield piece
            await work
        finally:
            watch.left.set()
            work.cancel()

    def close(self) -> None:
        """Drop what waits."""
        self.pool.close()
