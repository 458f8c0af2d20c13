"""Read the lines of a text file in any common encoding and with any common line ending.

- UTF-8 is the default. UTF-16 is detected by a byte order mark, or by the zero bytes of Western
  text.
- Lines that are not valid UTF-8 are read as Windows-1252, a superset of Latin-1, with a warning, if
  they look like Western text and no other line proves that the file is UTF-8.
- Lines end with LF or CR LF; with CR if that ends the first line. No other character ends a line.
"""

from __future__ import annotations

import codecs
import io
import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError
from idiolect.text.record_types.compressed_file import file_state, open_file
from idiolect.text.skipped import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedIOBase
    from pathlib import Path

    from _typeshed import WriteableBuffer

__all__ = ["is_cut_at_line_feeds", "open_text", "read_all_lines", "read_lines", "read_whole"]

_LOG = logging.getLogger(__name__)
_SAMPLE = 1 << 16
_BLOCK = 1 << 16
_NO_CHARACTER = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
"""Bytes that are undefined in Windows-1252."""
_RUN = re.compile(rb"[\x80-\xff]{3,}")
"""Several special characters in a row, which are rare in Western text."""


def read_lines(path: Path, limit: int) -> Iterator[tuple[int, str | Fault]]:
    """Stream the lines of a file with their numbers and line ends, one line in memory at a time.

    Args:
        path: The file.
        limit: Maximum length of a line in bytes; a longer one is a `Fault`.

    Raises:
        InputError: The file cannot be read.
    """
    with open_text(path) as file:
        form = _form(path, file_state(path))
        readline, end = _line_reader(file, form)
        number = 0
        while raw := readline(limit + 2):
            number += 1
            if len(raw) > limit and not raw.endswith(end):
                while (rest := readline(limit)) and not rest.endswith(end):
                    pass
                yield number, Fault("oversized")
                continue
            try:
                line = raw.decode()
            except UnicodeDecodeError:
                yield number, _legacy_text(raw, path)
                continue
            yield number, line if number > 1 else line.lstrip("\ufeff")


def is_cut_at_line_feeds(path: Path) -> bool:
    """Return whether the bytes after any line feed can be read as a file of their own.

    Raises:
        InputError: The file cannot be read.
    """
    return _form(path, file_state(path)) == _Form("utf-8", b"\n")


def read_all_lines(path: Path, limit: int) -> Iterator[str]:
    """Stream the lines of a file in which every line must be readable.

    Args:
        path: The file.
        limit: Maximum length of a line in bytes.

    Raises:
        InputError: The file, or a line of it, cannot be read.
    """
    for number, line in read_lines(path, limit):
        if isinstance(line, Fault):
            raise InputError(f"{path}, line {number:,}: {line.reason}", hint="convert it to UTF-8")
        yield line


def read_whole(path: Path, limit: int) -> str | Fault:
    """Read a file as one text.

    Args:
        path: The file.
        limit: Maximum length of the text in bytes; a longer one is a `Fault`.

    Raises:
        InputError: The file cannot be read.
    """
    with open_text(path) as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        return Fault("oversized")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return _legacy_text(raw, path)


@contextmanager
def open_text(path: Path) -> Iterator[BufferedIOBase]:
    """Open a text file to read its bytes as UTF-8; Windows-1252 bytes are not converted.

    Raises:
        InputError: It cannot be read; may be raised while reading.
    """
    form = _form(path, file_state(path))
    with open_file(path) as file:
        if form.encoding == "utf-8":
            yield file
        else:
            yield io.BufferedReader(_Utf8Stream(file, form.encoding))


@dataclass(frozen=True)
class _Form:
    """The encoding and line ending of a file."""

    encoding: str
    """Name of the Python codec."""
    end: bytes
    """The byte that ends each line."""


@lru_cache(maxsize=1024)
def _form(path: Path, state: tuple[int, int, bytes]) -> _Form:
    """Detect the form of a file from its first bytes; `state` keys the cache of results."""
    with open_file(path) as file:
        sample = file.read(_SAMPLE)
    encoding = _encoding(sample)
    if encoding != "utf-8":
        _LOG.warning("%s is read as %s", path, encoding.upper())
        sample = codecs.getincrementaldecoder(encoding)("replace").decode(sample).encode()
    return _Form(encoding, _line_end(sample))


def _encoding(sample: bytes) -> str:
    if sample.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd, pairs = sample[::2].count(0), sample[1::2].count(0), len(sample) // 2
    few, many = 0.02 * pairs, 0.2 * pairs
    if pairs and odd > many and even <= few:
        return "utf-16-le"
    return "utf-16-be" if pairs and even > many and odd <= few else "utf-8"


def _line_end(sample: bytes) -> bytes:
    """Return the first line ending, ignoring others inside quoted cells of a header."""
    unquoted = b"".join(sample.split(b'"')[::2])
    for text in (unquoted, sample):
        feed, carriage = text.find(b"\n"), text.find(b"\r")
        if carriage >= 0 and (feed < 0 or feed > carriage + 1):
            return b"\r"
        if feed >= 0:
            return b"\n"
    return b"\n"


def _line_reader(file: BufferedIOBase, form: _Form) -> tuple[Callable[[int], bytes], bytes]:
    if form.end == b"\n":
        return file.readline, form.end
    # Latin-1 keeps every byte.
    source: Any = file
    text = io.TextIOWrapper(source, encoding="latin-1", newline="\r")
    return lambda size: text.readline(size).encode("latin-1"), form.end


class _Utf8Stream(io.RawIOBase):
    """A stream that transcodes a file in another encoding to UTF-8."""

    def __init__(self, file: BufferedIOBase, encoding: str) -> None:
        self._file = file
        # A lone surrogate passes here; its line is then reported as invalid UTF-8.
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        while not self._ready:
            raw = self._file.read(_BLOCK)
            text = self._decoder.decode(raw, not raw)
            self._ready = text.encode("utf-8", "surrogatepass")
            if not raw:
                break
        count = min(len(view), len(self._ready))
        view[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def _legacy_text(raw: bytes, path: Path) -> str | Fault:
    """Decode bytes that are not UTF-8 as Windows-1252, if the whole file looks like it."""
    if _is_western(path, file_state(path)):
        try:
            return raw.decode("cp1252")
        except UnicodeDecodeError:
            pass
    return Fault("bad UTF-8")


@lru_cache(maxsize=1024)
def _is_western(path: Path, state: tuple[int, int, bytes]) -> bool:
    """Return whether the lines of a file that are not valid UTF-8 look like Western text.

    Text in another alphabet, such as Cyrillic, has long runs of non-ASCII bytes, or bytes that are
    undefined in Windows-1252.
    """
    utf8 = other = special = foreign = 0
    with open_text(path) as file:
        while raw := file.readline(_BLOCK):
            if raw.isascii():
                continue
            try:
                raw.decode()
                utf8 += 1
            except UnicodeDecodeError:
                other += 1
                special += sum(byte > 127 for byte in raw)
                foreign += sum(map(len, _RUN.findall(raw))) + 100 * len(_NO_CHARACTER.findall(raw))
    western = utf8 * 10 < other and foreign * 10 < special
    if western:
        _LOG.warning("%s is read as Windows-1252: %d of its lines are not UTF-8", path, other)
    return western
