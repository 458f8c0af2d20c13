"""A sequence of strings on disk, which does not have to fit into memory."""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import overload

__all__ = ["TextFile", "text_digest"]


class TextFile(Sequence[str]):
    """An append-only list of texts in a temporary file, deleted when the process ends.

    It takes eight bytes of memory per text. Reading is thread-safe.

    >>> texts = TextFile(["one", "two", "three"])
    >>> texts[1], texts[::2]
    ('two', ['one', 'three'])

    Args:
        texts: The first texts.
        folder: Where the file is created; by default the system's folder for temporary files.
    """

    def __init__(self, texts: Iterable[str] = (), *, folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as `self`
        weakref.finalize(self, self._file.close)
        self._ends = array("q", [0])
        for text in texts:
            self.append(text)

    @classmethod
    def distinct(cls, texts: Iterable[str], *, folder: Path | None = None) -> TextFile:
        """Store each distinct text once, in order of first appearance."""
        stored, known = cls(folder=folder), set[bytes]()
        for text in texts:
            if (digest := text_digest(text)) not in known:
                known.add(digest)
                stored.append(text)
        return stored

    def append(self, text: str) -> None:
        """Add a text."""
        data = text.encode("utf-8", "surrogatepass")
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Read one text, or a list of several."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        self._file.flush()
        start, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), end - start, start).decode("utf-8", "surrogatepass")


def text_digest(text: str) -> bytes:
    """Return a 16-byte hash of a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
