"""Files on local disks and in object stores, under paths or URIs such as `s3://bucket/folder`.

`pyarrow.fs` supports `s3`, `gs`, `hdfs` and `file`; other schemes are opened by fsspec, if it and
the package for the scheme are installed. Credentials and endpoints are read from the environment as
usual (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).

A file is written under a hidden name and then renamed, so that an incomplete file is never visible.
This is also necessary for atomic uploads: closing a stream of an object store completes the object,
even if an error has truncated it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs

from idiolect.errors import CheckpointError, InputError, MissingDependencyError

__all__ = ["Storage", "is_uri", "local_copy"]

_COPY_BYTES = 1 << 20


def is_uri(source: str | Path) -> bool:
    """Return whether a source is a URI rather than a path."""
    return "://" in str(source)


@dataclass(frozen=True)
class Storage:
    """A file or a folder on a local disk or in an object store."""

    uri: str
    """Its path or URI."""
    files: pafs.FileSystem
    """The file system or store."""
    path: str
    """Its path in the file system or store."""

    @classmethod
    def of(cls, source: str | Path) -> Self:
        """Return the storage of a path or a URI.

        Raises:
            InputError: The URI is not valid.
            MissingDependencyError: No installed package knows its scheme.
        """
        uri = str(source)
        if not is_uri(uri):
            return cls(uri, pafs.LocalFileSystem(), str(Path(uri).absolute()))
        try:
            files, path = pafs.FileSystem.from_uri(_with_endpoint(uri))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            files, path = _by_fsspec(uri, error)
        return cls(uri.rstrip("/"), files, path.rstrip("/"))

    def __truediv__(self, name: str) -> Storage:
        if not is_uri(self.uri) or isinstance(self.files, pafs.PyFileSystem):  # fsspec's are raw
            uri = f"{self.uri.rstrip('/')}/{name}"
        else:  # options, such as an endpoint, stay at the end
            folder, mark, options = self.uri.partition("?")
            uri = f"{folder.rstrip('/')}/{quote(name)}{mark}{options}"
        return Storage(uri, self.files, f"{self.path}/{name}")

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rsplit("/", 1)[-1]

    def info(self) -> pafs.FileInfo:
        """Return its type, size and modification time.

        Raises:
            InputError: The store cannot be reached, or denies access.
        """
        try:
            return self.files.get_file_info(self.path)
        except OSError as error:
            raise self._unreachable(error) from error

    def list(self) -> list[Storage]:
        """Return the files of a folder and its subfolders, sorted by path, without hidden files.

        Raises:
            InputError: As for `info`.
        """
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        try:
            infos = self.files.get_file_info(selector)
        except OSError as error:
            raise self._unreachable(error) from error
        found = sorted(
            one.path for one in infos if one.is_file and not one.base_name.startswith(".")
        )
        return [self / path[len(self.path) + 1 :] for path in found]

    def read(self, begin: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file, or a range of them.

        Raises:
            CheckpointError: It is missing or cannot be read.
        """
        try:
            with self.files.open_input_file(self.path) as file:
                file.seek(begin)
                return file.read(None if end is None else end - begin)
        except OSError as error:
            raise self._unreadable(error) from error

    def read_json(self) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        try:
            value = json.loads(self.read())
        except ValueError as error:
            raise CheckpointError(f"{self.uri} is damaged: {error}") from error
        if not isinstance(value, dict):
            raise CheckpointError(f"{self.uri} is not a JSON object", hint="check the path")
        return value

    def download(self, target: Path, begin: int = 0, end: int | None = None) -> None:
        """Copy a file, or a range of its bytes, to a local file.

        Raises:
            CheckpointError: It is missing or cannot be read.
        """
        try:
            with self.files.open_input_file(self.path) as file, target.open("wb") as copy:
                file.seek(begin)
                left = file.size() - begin if end is None else end - begin
                while left > 0 and (data := file.read(min(left, _COPY_BYTES))):
                    copy.write(data)
                    left -= len(data)
        except OSError as error:
            raise self._unreadable(error) from error

    def write(self, data: bytes | Path) -> None:
        """Write a file from bytes or a local file; it becomes visible when it is complete."""
        folder, _, name = self.path.rpartition("/")
        hidden = f"{folder}/.{name}.{secrets.token_hex(4)}"
        if isinstance(self.files, pafs.LocalFileSystem):
            self.files.create_dir(folder)
        try:
            with self.files.open_output_stream(hidden) as stream:
                if isinstance(data, bytes):
                    stream.write(data)
                else:
                    with data.open("rb") as file:
                        while block := file.read(_COPY_BYTES):
                            stream.write(block)
            self.files.move(hidden, self.path)
        except BaseException:
            with contextlib.suppress(Exception):
                self.files.delete_file(hidden)
            raise

    def delete(self) -> None:
        """Delete a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self.files.delete_file(self.path)

    def _unreachable(self, error: OSError) -> InputError:
        return InputError(
            f"{self.uri} cannot be reached: {_first_line(error)}",
            hint="check the address and the credentials",
        )

    def _unreadable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"cannot read {self.uri}: {_first_line(error)}",
            hint="check that every node reaches it: a shared disk or an object store",
        )


def local_copy(source: str | Path) -> str:
    """Return a model's location on this machine; a file or folder of a store is downloaded once.

    Names and paths are returned unchanged.

    Raises:
        InputError: The folder of the store has no files.
        CheckpointError: A file cannot be read.
    """
    if not is_uri(source):
        return str(source)
    folder = Storage.of(source)
    is_file = folder.info().is_file  # such as a GGUF file
    files = [folder] if is_file else folder.list()
    if not files:
        raise InputError(f"no files in {source}", hint="check the bucket and the path")
    marks = [f"{one.uri} {(info := one.info()).size} {info.mtime_ns}" for one in files]
    name = hashlib.blake2b("\n".join(marks).encode(), digest_size=12).hexdigest()
    target = Path(tempfile.gettempdir()) / f"idiolect-{os.getuid()}" / name
    if not target.is_dir():
        target.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=target.parent))
        try:
            for one in files:
                local = fresh / (one.name if is_file else one.path[len(folder.path) + 1 :])
                local.parent.mkdir(parents=True, exist_ok=True)
                one.download(local)
            try:
                fresh.rename(target)
            except OSError:
                if not target.is_dir():  # another process may have created it first
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return str(target / folder.name if is_file else target)


def _with_endpoint(uri: str) -> str:
    """Add the endpoint of the environment to an S3 URI, since Arrow reads it only from the URI."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not uri.startswith("s3://") or not endpoint or "endpoint_override=" in uri:
        return uri
    scheme, _, host = endpoint.rstrip("/").rpartition("://")
    joint = "&" if "?" in uri else "?"
    return f"{uri}{joint}scheme={scheme or 'https'}&endpoint_override={host.replace(':', '%3A')}"


def _by_fsspec(uri: str, problem: Exception) -> tuple[pafs.FileSystem, str]:
    scheme = uri.partition("://")[0]
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(
            f"no installed package opens {scheme}://", hint="pip install fsspec and its package"
        ) from error
    try:
        files, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise MissingDependencyError(f"{scheme}:// needs a package: {error}") from error
    except Exception:
        raise InputError(f"{uri} is not valid: {_first_line(problem)}", hint="check it") from None
    handler: Any = pafs.FSSpecHandler  # abstract in the stubs only
    return pafs.PyFileSystem(handler(files)), path


def _first_line(error: Exception) -> str:
    text = str(error)
    return text.splitlines()[0] if text else type(error).__name__
