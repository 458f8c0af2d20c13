"""`SharedBatch`: one running batch for the texts of all calls, from any thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from idiolect.generate.batching.running_batch import RunningBatch
from idiolect.generate.batching.text_writing import TextScheduler, WritingCall, WrittenPiece
from idiolect.generate.generation import TextRow
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.logits_processors import LogitsProcessor

__all__ = ["SharedBatch"]

_Found = SimpleQueue[WrittenPiece | BaseException]


class SharedBatch:
    """Generates the texts of all calls in one running batch, in one thread that runs when needed.

    The weights are read once for all texts of a step, so many texts take little longer than one.

    Args:
        open: Returns an empty batch.
        batch_size: As for `TextScheduler`.
        tokens: As for `TextScheduler`.
    """

    def __init__(self, open: Callable[[], RunningBatch], batch_size: int, tokens: int) -> None:
        self._open, self._batch_size, self._tokens = open, batch_size, tokens
        self._scheduler = self._new_scheduler()
        self._lock = threading.Lock()
        self._found: dict[WritingCall, _Found] = {}
        """The new pieces (or an error) for each unfinished call."""
        self._running = False

    def write(
        self,
        rows: Sequence[TextRow],
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
        ends: Sequence[int],
    ) -> Iterator[tuple[TextRow, str]]:
        """Generate texts together with those of other calls; see `write_texts`.

        If the iterator is closed early, its texts leave the batch.
        """
        call, found, left = WritingCall(deque(rows), options, processors, ends), _Found(), len(rows)
        with self._lock:
            self._found[call] = found
            self._scheduler.add(call)
            if not self._running:
                self._running = True
                # Not a daemon: a daemon inside torch at interpreter exit would abort the process.
                threading.Thread(target=self._run, name="language model").start()
        try:
            while left:
                piece = found.get()
                if isinstance(piece, BaseException):
                    raise piece
                left -= piece.is_last
                yield piece.row, piece.text
        finally:
            call.ended = True
            with self._lock:
                self._found.pop(call, None)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._scheduler.busy:
                    self._running = False
                    return
            try:
                written = self._scheduler.step()
            except BaseException as error:  # such as out of memory: nobody would report it
                self._fail(error)
                continue
            with self._lock:
                for call, piece in written:
                    if call in self._found:
                        self._found[call].put(piece)

    def _fail(self, error: BaseException) -> None:
        """End all calls with an error, and start a new batch: this one may be inconsistent."""
        with self._lock:
            self._scheduler = self._new_scheduler()
            for call, found in self._found.items():
                call.ended = True
                found.put(error)

    def _new_scheduler(self) -> TextScheduler:
        return TextScheduler(self._open(), self._batch_size, self._tokens)
