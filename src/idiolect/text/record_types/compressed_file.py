"""Open a file that may be compressed, and find its type from its name."""

from __future__ import annotations

import os
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase
    from pathlib import Path

__all__ = ["COMPRESSIONS", "file_state", "file_type", "is_compressed", "open_file"]

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of compressed files, after the suffix of the type."""
_MAGIC = {b"\x1f\x8b\x08": ".gz", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_OTHER = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"%PDF-": "a PDF file",
    b"SQLite format 3": "a database",
}


def file_type(path: Path) -> str:
    """Return the suffix that names a file's type, such as `.csv`, in lower case.

    >>> from pathlib import Path
    >>> file_type(Path("shop.CSV.gz"))
    '.csv'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_compressed(path: Path) -> bool:
    """Return whether a file's name or first bytes indicate that it is compressed."""
    return _compression(path) != ""


def file_state(path: Path) -> tuple[int, int, bytes]:
    """Return modification time, size and first bytes of a file, to detect that it has changed.

    The time alone is not enough: file systems update it only every few milliseconds.

    Raises:
        InputError: There is no such file.
    """
    status, start = _start(path, 4096)
    return status.st_mtime_ns, status.st_size, start


@contextmanager
def open_file(path: Path) -> Iterator[BufferedIOBase]:
    """Open a file to read its bytes, decompressing it if necessary.

    Raises:
        InputError: It is missing, a folder, truncated or damaged; may be raised while reading.
    """
    try:
        with _open(path, _compression(path)) as file:
            yield file
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:
        if type(error).__name__ != "LZMAError":  # by name, because lzma is imported lazily
            raise
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    missing = isinstance(error, FileNotFoundError)
    hint = "check the path" if missing else "check that it is complete and undamaged"
    return InputError(f"{path} cannot be read: {reason}", hint=hint)


def _compression(path: Path) -> str:
    if (suffix := path.suffix.lower()) in COMPRESSIONS:
        return suffix
    _, start = _start(path, 16)
    if other := next((name for magic, name in _OTHER.items() if start.startswith(magic)), None):
        raise InputError(f"{path} is {other}, not text", hint="export it as CSV or JSON Lines")
    return next((suffix for magic, suffix in _MAGIC.items() if start.startswith(magic)), "")


def _start(path: Path, size: int) -> tuple[os.stat_result, bytes]:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()), file.read(size)
    except IsADirectoryError as error:
        raise InputError(
            f"{path} cannot be read: it is a folder", hint="name the file in it"
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _open(path: Path, compression: str) -> BufferedIOBase:
    if compression == ".gz":
        import gzip

        return gzip.open(path)
    if compression == ".bz2":
        import bz2

        return bz2.open(path)
    if compression == ".xz":
        import lzma

        return lzma.open(path)
    if compression == ".zst":
        import io

        import pyarrow as pa

        stream: Any = pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")
        return io.BufferedReader(stream)
    return path.open("rb")
