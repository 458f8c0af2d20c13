"""Files of arrays: versioned, checksummed, written whole, opened by mapping them into memory.

    bytes 0–7     magic
    bytes 8–23    place and length of the header
    bytes 24–39   BLAKE2b of the header, 16 bytes
    from 4,096    the arrays, each from a multiple of 4,096 bytes
    at the end    the header: JSON with the kind of file, its version, facts, and for each array its
                  name, type, shape, place and the checksums of its blocks

The checksum of a block is eight interleaved chains of 64-bit multiplications, fast enough to check
a file at the speed of memory. Each step maps different states to different states, so one changed
word always changes the sum. It protects from accidents, not from forgery; what could make a search
read outside its arrays is checked apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import struct
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, InputError
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = ["PAGE", "ArrayFile", "StreamedArray", "atomic_file", "checksum", "write_arrays"]

PAGE = 4096
"""Bytes in a page of disk and memory."""

_MAGIC = b"IDIOANN\x01"
_BLOCK = 1 << 22
_LONGEST = 1 << 26
_AGAIN = "build it again, or restore it from a copy"


@kernel
def checksum(data):  # type: ignore[no-untyped-def]
    """Return a 64-bit checksum of bytes (uint8)."""
    prime = np.uint64(0x9E3779B185EBCA87)
    lanes = np.zeros(8, np.uint64)
    whole = data.shape[0] // 64
    words = data[: whole * 64].view(np.uint64)
    for lane in range(8):
        lanes[lane] = np.uint64(lane + 1) * prime
    for i in range(whole):
        for lane in range(8):
            mixed = (lanes[lane] ^ words[8 * i + lane]) * prime
            lanes[lane] = mixed ^ (mixed >> np.uint64(29))
    total = np.uint64(data.shape[0])
    for j in range(whole * 64, data.shape[0]):
        total = (total ^ np.uint64(data[j])) * prime
    for lane in range(8):
        total = (total ^ lanes[lane]) * prime
        total ^= total >> np.uint64(32)
    return total


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears whole under its name, or not at all.

    Raises:
        InputError: the folder is missing or cannot be written, or the disk is full.
    """
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            os.chmod(temporary, 0o644)  # an index is for other users to read, too
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        raise


@dataclass(frozen=True)
class StreamedArray:
    """An array that is made while it is written: chunks, of all axes but the first complete."""

    type: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: Iterable[NDArray[Any]]


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _blocks(array: NDArray[Any] | StreamedArray) -> Iterator[NDArray[np.uint8]]:
    """Cut an array into blocks of bytes, all but the last of full length."""
    chunks = array.chunks if isinstance(array, StreamedArray) else [array]
    left = np.empty(0, np.uint8)
    for chunk in chunks:
        data = np.concatenate([left, _bytes_of(chunk)]) if len(left) else _bytes_of(chunk)
        whole = len(data) // _BLOCK * _BLOCK
        for start in range(0, whole, _BLOCK):
            yield data[start : start + _BLOCK]
        left = data[whole:]
    if len(left):
        yield left


def write_arrays(
    path: str | Path,
    kind: str,
    version: int,
    facts: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any] | StreamedArray],
) -> None:
    """Write arrays and facts (what JSON can hold) as one file.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_file(Path(path)) as file:
        place = PAGE
        entries: list[dict[str, Any]] = []
        for name, array in arrays.items():
            type_ = array.type if isinstance(array, StreamedArray) else array.dtype
            entry = {"name": name, "type": type_.str, "shape": array.shape, "place": place}
            file.seek(place)
            sums = []
            for block in _blocks(array):
                sums.append(f"{int(checksum(block)):016x}")
                file.write(block.data)
            entries.append({**entry, "sums": sums})
            place = -(-file.tell() // PAGE) * PAGE
        header = json.dumps(
            {"kind": kind, "version": version, "facts": dict(facts), "arrays": entries}
        ).encode()
        file.seek(place)
        file.write(header)
        file.seek(0)
        digest = hashlib.blake2b(header, digest_size=16).digest()
        file.write(_MAGIC + struct.pack("<QQ", place, len(header)) + digest)


class ArrayFile:
    """A file of arrays, mapped into memory: pages are read when touched and shared by processes.

    The arrays can be written to, which changes this process's copy of the page and not the file.

    Args:
        path: The file.
        kind: What it must hold.
        version: The newest version that can be read.

    Raises:
        CheckpointError: it is missing, another kind of file, of a newer version, cut, or its header
            is damaged.
    """

    def __init__(self, path: str | Path, kind: str, version: int) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                content = self._read_header(file)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise CheckpointError(
                f"cannot read {self.path}: {error.strerror}", hint="check the path"
            ) from error
        if content["kind"] != kind:
            raise CheckpointError(
                f"{self.path} holds a {content['kind']}, not a {kind}", hint="is it the right file?"
            )
        if content["version"] > version:
            raise CheckpointError(
                f"{self.path} is of version {content['version']}, this program reads {version}",
                hint="read it with a newer version",
            )
        self.facts: dict[str, Any] = content["facts"]
        """What was written beside the arrays."""
        self._entries: dict[str, Any] = {entry["name"]: entry for entry in content["arrays"]}

    def _read_header(self, file: IO[bytes]) -> dict[str, Any]:
        head = file.read(40)
        if head[:7] != _MAGIC[:7]:
            raise CheckpointError(
                f"{self.path} is not an index file", hint="give the path an index was saved to"
            )
        if head[7:8] != _MAGIC[7:]:
            raise CheckpointError(
                f"{self.path} has a newer file format", hint="read it with a newer version"
            )
        size = os.fstat(file.fileno()).st_size
        place, length = struct.unpack("<QQ", head[8:24]) if len(head) == 40 else (0, 0)
        if not 0 < length <= _LONGEST or size != place + length:
            raise CheckpointError(
                f"{self.path} is damaged: it has {size:,} bytes, not {place + length:,}",
                hint=_AGAIN,
            )
        file.seek(place)
        header = file.read(length)
        if hashlib.blake2b(header, digest_size=16).digest() != head[24:]:
            raise CheckpointError(
                f"{self.path} is damaged: its header does not match its checksum", hint=_AGAIN
            )
        content: dict[str, Any] = json.loads(header)
        return content

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._entries:
            raise CheckpointError(f"{self.path} is damaged: it has no {name}", hint=_AGAIN)
        entry: dict[str, Any] = self._entries[name]
        return entry

    def place(self, name: str) -> int:
        """Return the first byte of an array."""
        return int(self._entry(name)["place"])

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def array(self, name: str) -> NDArray[Any]:
        """Return an array by name, mapped.

        Raises:
            CheckpointError: the file has no such array.
        """
        entry = self._entry(name)
        count = math.prod(entry["shape"])
        array = np.frombuffer(self._map, np.dtype(entry["type"]), count, entry["place"])
        return array.reshape(entry["shape"])

    def verify(self, *, exclude: Collection[str] = (), threads: int | None = None) -> None:
        """Read the arrays and compare the checksums.

        Raises:
            CheckpointError: a block is damaged; the message tells the array and the bytes.
        """
        with ThreadPool(threads) as pool:
            for name, entry in self._entries.items():
                if name not in exclude:
                    self._verify(name, entry["sums"], pool)

    def _verify(self, name: str, sums: list[str], pool: ThreadPool) -> None:
        data = _bytes_of(self.array(name))

        def check(start: int, stop: int) -> None:
            for i in range(start, stop):
                if f"{int(checksum(data[i * _BLOCK : (i + 1) * _BLOCK])):016x}" != sums[i]:
                    first = self.place(name) + i * _BLOCK
                    raise CheckpointError(
                        f"{self.path} is damaged: its {name}, bytes {first:,} to "
                        f"{first + _BLOCK - 1:,}, do not match their checksum",
                        hint=_AGAIN,
                    )

        pool.parallel_for(check, len(sums), 4)
