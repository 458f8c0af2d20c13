"""Read files with one-line errors, and write them atomically.

A file is written under a temporary name in its target folder, flushed to disk and renamed. If the
process is killed, either the old or the new file is there, complete.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect.errors import CheckpointError, IdiolectError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "engine_errors",
    "flush",
    "read_bytes",
    "read_json",
    "read_text",
    "replacing_file",
    "working_folder",
    "write_atomic",
]


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
    """Read a whole UTF-8 file with its newlines unchanged, without a byte order mark.

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
        CheckpointError: the file is missing, not UTF-8, not JSON, or not an object.
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
            f"{path} holds a {type(value).__name__}, not an object",
            hint="check that it is the right file",
        )
    return value


@contextlib.contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Turn an error of the `tokenizers` library about a file into a one-line error.

    A Rust panic is not an `Exception`; it is caught as well.
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


def write_atomic(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write bytes, or an iterable of them, to a file that is never visible half-written.

    Its folder must exist.
    """
    with replacing_file(path) as fresh, fresh.open("wb") as file:
        file.writelines((data,) if isinstance(data, bytes) else data)


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield the name of an empty file to write, which replaces `path` if no error is raised.

    Its folder must exist.
    """
    handle, name = _create_sibling(path)
    try:
        yield name
        flush(name)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder and should be a file", str(path))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    finally:
        os.close(handle)


def _create_sibling(path: Path) -> tuple[int, Path]:
    """Open an empty file in the same folder as `path`; the kernel applies the umask.

    `tempfile.mkstemp` would make it private, and reading the umask means setting it, which other
    threads would see. The file is `.NAME.new`, locked, so one that a killed process left behind is
    overwritten. If another writer holds the lock, or the file system has no locks, the file gets a
    unique name.
    """
    name = path.with_name(f".{path.name}.new")
    with contextlib.suppress(OSError):
        while True:
            handle = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o666)
            if _lock(handle, name):
                return handle, name
            os.close(handle)
    while True:
        name = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), name
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = str(path)  # the file that was asked for, in messages
            raise


def _lock(handle: int, name: Path) -> bool:
    """Lock and empty an open file; False if it has been renamed since it was opened.

    Raises:
        OSError: Another writer holds the lock.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.stat(name, follow_symlinks=False)
        if not os.path.samestat(found, os.fstat(handle)):
            return False
        os.ftruncate(handle, 0)
    except FileNotFoundError:
        return False
    except OSError:
        os.close(handle)
        raise
    return True


@contextlib.contextmanager
def working_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder inside `parent`, readable only by its owner, and delete it on exit.

    If it has been renamed by then, it is kept. A folder in use is locked; folders with the same
    prefix that killed processes left behind are deleted.
    """
    for old in parent.glob(f"{glob.escape(prefix)}????????"):  # as `mkdtemp` names them
        _delete_unused(old)
    handle = None
    while handle is None:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with contextlib.suppress(FileNotFoundError):  # deleted before it was locked
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # this file system has no locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not folder.exists():
                os.close(handle)
                handle = None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _delete_unused(folder: Path) -> None:
    """Delete a folder if no process holds its lock."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


def flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
