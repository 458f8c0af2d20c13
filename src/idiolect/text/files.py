"""Files read with one-line errors and written whole: what every reader in this room shares.

A file is written under a temporary name in its own folder, flushed to the disk and renamed, so a
process that is killed leaves the old file or the new one, never half of either.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

from idiolect.errors import CheckpointError, IdiolectError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["engine_errors", "flush", "read_bytes", "read_json", "read_text", "write_atomic"]


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises:
        CheckpointError: the file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}", hint="check the path and its permissions"
        ) from error


def read_text(path: Path) -> str:
    """Read a whole UTF-8 file, newlines as they are; a byte order mark is dropped.

    Raises:
        CheckpointError: the file is missing, or is not UTF-8 (the message gives the byte).
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}",
            hint="convert it, for example with iconv -t UTF-8",
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, not UTF-8, not JSON, or holds no object.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: {error}", hint="fetch or export it again"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a {type(value).__name__}, not an object", hint="is it the right file?"
        )
    return value


@contextlib.contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Turn what the engine raises while it takes a file apart into one line.

    The engine's own panics are no `Exception`; they are caught here as well.
    """
    try:
        yield
    except IdiolectError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(
            f"{name} is damaged: {error}", hint="fetch or export it again"
        ) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen half-written; its folder must exist."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def flush(path: Path) -> None:
    """Put a file, or a folder's own entries, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
