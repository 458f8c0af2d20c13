"""Files of arrays: versioned, checksummed, written whole, opened by mapping them into memory.

    bytes 0–7     magic
    bytes 8–15    length of the header
    bytes 16–31   BLAKE2b of the header, 16 bytes
    bytes 32–     the header: JSON with the kind of file, its version, facts, and for each array its
                  name, type, shape, place and the checksums of its blocks
    then          the arrays, each from a multiple of 4,096 bytes

The checksum of a block is eight interleaved chains of 64-bit multiplications, fast enough to check a
file at the speed of memory. Each step maps different states to different states, so one changed
word always changes the sum. It protects from accidents, not from forgery; what could make a search
read outside its arrays is checked apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, InputError
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.threads import Crew

__all__ = ["PAGE", "ArrayFile", "atomic_file", "checksum", "write_arrays"]

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


def _block_sums(array: NDArray[Any], crew: Crew) -> list[str]:
    data = array.reshape(-1).view(np.uint8)
    sums = [""] * -(-len(data) // _BLOCK)

    def one(start: int, stop: int) -> None:
        for i in range(start, stop):
            sums[i] = f"{int(checksum(data[i * _BLOCK : (i + 1) * _BLOCK])):016x}"

    crew.share(one, len(sums), 4)
    return sums


def write_arrays(
    path: str | Path,
    kind: str,
    version: int,
    facts: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Write arrays and facts (what JSON can hold) as one file.

    Raises:
        InputError: the file cannot be written.
    """
    entries: list[dict[str, Any]] = []
    place = 0
    with Crew() as crew:
        for name, array in arrays.items():
            entries.append(
                {
                    "name": name,
                    "type": array.dtype.str,
                    "shape": array.shape,
                    "place": place,
                    "sums": _block_sums(np.ascontiguousarray(array), crew),
                }
            )
            place += -(-array.nbytes // PAGE) * PAGE
    header = json.dumps(
        {"kind": kind, "version": version, "facts": dict(facts), "bytes": place, "arrays": entries}
    ).encode()
    digest = hashlib.blake2b(header, digest_size=16).digest()
    start = -(-(32 + len(header)) // PAGE) * PAGE
    with atomic_file(Path(path)) as file:
        file.write(_MAGIC + struct.pack("<Q", len(header)) + digest + header)
        for entry, array in zip(entries, arrays.values(), strict=True):
            file.seek(start + entry["place"])
            np.ascontiguousarray(array).tofile(file)
        file.truncate(start + place)


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
                size = os.fstat(file.fileno()).st_size
                header = self._read_header(file, size)
                self._start = -(-(32 + len(header)) // PAGE) * PAGE
                content = json.loads(header)
                self._check(content, kind, version, size)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise CheckpointError(
                f"cannot read {self.path}: {error.strerror}", hint="check the path"
            ) from error
        self.facts: dict[str, Any] = content["facts"]
        """What was written beside the arrays."""
        self._entries = {entry["name"]: entry for entry in content["arrays"]}

    def _read_header(self, file: IO[bytes], size: int) -> bytes:
        head = file.read(32)
        if head[:7] != _MAGIC[:7]:
            raise CheckpointError(
                f"{self.path} is not an index file", hint="give the path an index was saved to"
            )
        if head[:8] != _MAGIC:
            raise CheckpointError(
                f"{self.path} has a newer file format", hint="read it with a newer version"
            )
        length = struct.unpack("<Q", head[8:16])[0] if len(head) == 32 else 0
        if not 0 < length <= min(_LONGEST, size - 32):
            raise CheckpointError(f"{self.path} is damaged: its header is cut", hint=_AGAIN)
        header = file.read(length)
        if hashlib.blake2b(header, digest_size=16).digest() != head[16:]:
            raise CheckpointError(
                f"{self.path} is damaged: its header does not match its checksum", hint=_AGAIN
            )
        return header

    def _check(self, content: dict[str, Any], kind: str, version: int, size: int) -> None:
        if content["kind"] != kind:
            raise CheckpointError(
                f"{self.path} holds a {content['kind']}, not a {kind}", hint="is it the right file?"
            )
        if content["version"] > version:
            raise CheckpointError(
                f"{self.path} is of version {content['version']}, this program reads {version}",
                hint="read it with a newer version",
            )
        whole = self._start + content["bytes"]
        if size != whole:
            raise CheckpointError(
                f"{self.path} is damaged: it has {size:,} bytes, not {whole:,}", hint=_AGAIN
            )

    def array(self, name: str) -> NDArray[Any]:
        """Return an array by name.

        Raises:
            CheckpointError: the file has no such array.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self.path} is damaged: it has no {name}", hint=_AGAIN)
        kind = np.dtype(entry["type"])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        place = self._start + entry["place"]
        return np.frombuffer(self._map, kind, count, place).reshape(entry["shape"])

    def verify(self, threads: int | None = None) -> None:
        """Read everything and compare the checksums.

        Raises:
            CheckpointError: a block is damaged; the message tells the array and the bytes.
        """
        with Crew(threads) as crew:
            for name, entry in self._entries.items():
                for i, found in enumerate(_block_sums(self.array(name), crew)):
                    if found != entry["sums"][i]:
                        first = self._start + entry["place"] + i * _BLOCK
                        raise CheckpointError(
                            f"{self.path} is damaged: its {name}, bytes {first:,} to "
                            f"{first + _BLOCK - 1:,}, do not match their checksum",
                            hint=_AGAIN,
                        )
