"""Files of arrays: versioned, checksummed, written atomically and read through a memory map.

    bytes 0–7     magic
    bytes 8–23    offset and length of the header
    bytes 24–39   BLAKE2b hash of the header, 16 bytes
    from 4,096    the arrays, each at a multiple of 4,096 bytes
    at the end    the header: JSON with the kind of the file, its version, facts (small values), and
                  for each array its name, type, shape, offset and the checksums of its blocks

The checksum of a block is eight interleaved chains of 64-bit multiplications, which run at memory
bandwidth. Each step is a bijection, so one changed word always changes the checksum. Checksums
detect accidental damage, not forgery. Row numbers that would make a search read outside its arrays
are checked separately.
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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, InputError
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann.thread_pool import ThreadPool

__all__ = [
    "PAGE",
    "ArrayFile",
    "StreamedArray",
    "atomic_file",
    "checksum",
    "fits_shape",
    "write_arrays",
]

PAGE = 4096
"""Bytes of a page on disk and in memory."""

_MAGIC = b"IDIOANN\x01"
_BLOCK = 1 << 22  # bytes per checksum
_MAX_HEADER = 1 << 26  # bytes
_REBUILD = "build it again, or restore it from a copy"
_TYPES = frozenset(np.dtype(kind).str for kind in ["?", "u1", "u8", "i4", "i8", "f4", "f8"])
_LARGEST_FACT = 1 << 40


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
    """Yield a temporary file, and rename it to `path` if there is no error.

    Raises:
        InputError: the folder is missing or not writable, or the disk is full.
    """
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            os.chmod(temporary, 0o644)  # other users may read an index
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
    """An array that is computed while it is written, in chunks along its first axis."""

    type: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: Iterable[NDArray[Any]]


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _blocks(array: NDArray[Any] | StreamedArray) -> Iterator[NDArray[np.uint8]]:
    """Split an array into blocks of bytes; only the last may be shorter."""
    chunks = array.chunks if isinstance(array, StreamedArray) else [array]
    rest = np.empty(0, np.uint8)
    for chunk in chunks:
        data = np.concatenate([rest, _bytes_of(chunk)]) if len(rest) else _bytes_of(chunk)
        whole = len(data) // _BLOCK * _BLOCK
        for start in range(0, whole, _BLOCK):
            yield data[start : start + _BLOCK]
        rest = data[whole:]
    if len(rest):
        yield rest


def write_arrays(
    path: str | Path,
    kind: str,
    version: int,
    facts: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any] | StreamedArray],
) -> None:
    """Write arrays and facts (JSON values) to one file.

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
    """A memory-mapped file of arrays: pages are read on first access and shared by processes.

    The mapping is copy-on-write: writing to an array does not change the file.

    Args:
        path: The file.
        kind: The required kind of file.
        version: The newest supported version.

    Raises:
        CheckpointError: the file is missing, of another kind, of a newer version or truncated, or
            its header is damaged.
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
                f"{self.path} holds a {content['kind']}, not a {kind}", hint="check the path"
            )
        if content["version"] > version:
            raise CheckpointError(
                f"{self.path} is of version {content['version']}, this program reads {version}",
                hint="read it with a newer version",
            )
        self.facts: dict[str, Any] = content["facts"]
        """The values that were written with the arrays."""
        self._entries: dict[str, Any] = {entry["name"]: entry for entry in content["arrays"]}

    def _read_header(self, file: IO[bytes]) -> dict[str, Any]:
        head = file.read(40)
        if head[:7] != _MAGIC[:7]:
            raise CheckpointError(
                f"{self.path} is not an index file", hint="use the path of a saved index"
            )
        if head[7:8] != _MAGIC[7:]:
            raise CheckpointError(
                f"{self.path} has a newer file format", hint="read it with a newer version"
            )
        size = os.fstat(file.fileno()).st_size
        place, length = struct.unpack("<QQ", head[8:24]) if len(head) == 40 else (0, 0)
        if not 0 < length <= _MAX_HEADER or size != place + length:
            raise CheckpointError(
                f"{self.path} is damaged: it has {size:,} bytes, not {place + length:,}",
                hint=_REBUILD,
            )
        file.seek(place)
        header = file.read(length)
        if hashlib.blake2b(header, digest_size=16).digest() != head[24:]:
            raise CheckpointError(
                f"{self.path} is damaged: its header does not match its checksum", hint=_REBUILD
            )
        try:
            return _checked_header(header, size, _BLOCK)
        except ValueError as error:
            raise CheckpointError(f"{self.path} is damaged: {error}", hint=_REBUILD) from error

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._entries:
            raise CheckpointError(f"{self.path} is damaged: it has no {name}", hint=_REBUILD)
        entry: dict[str, Any] = self._entries[name]
        return entry

    def place(self, name: str) -> int:
        """Return the offset of an array in the file, in bytes."""
        return int(self._entry(name)["place"])

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def array(self, name: str) -> NDArray[Any]:
        """Return an array of the mapping.

        Raises:
            CheckpointError: the file has no such array.
        """
        entry = self._entry(name)
        count = math.prod(entry["shape"])
        array = np.frombuffer(self._map, np.dtype(entry["type"]), count, entry["place"])
        return array.reshape(entry["shape"])

    def load(self, name: str) -> NDArray[Any]:
        """Read an array into separate memory and verify it, without using the mapping.

        Pages read through the mapping would also count as memory of the process.

        Raises:
            CheckpointError: the file has no such array, or a block of it is damaged.
        """
        entry = self._entry(name)
        count = math.prod(entry["shape"])
        array = np.fromfile(self.path, np.dtype(entry["type"]), count, offset=entry["place"])
        with ThreadPool(1) as pool:
            self._verify(name, array, pool)
        return array.reshape(entry["shape"])

    def verify(self, *, threads: int | None = None) -> None:
        """Read the arrays and compare their checksums.

        Raises:
            CheckpointError: a block is damaged; the message names the array and the bytes.
        """
        with ThreadPool(threads) as pool:
            for name in self._entries:
                self._verify(name, self.array(name), pool)

    def _verify(self, name: str, array: NDArray[Any], pool: ThreadPool) -> None:
        data, sums = _bytes_of(array), self._entry(name)["sums"]

        def check(start: int, stop: int) -> None:
            for i in range(start, stop):
                if f"{int(checksum(data[i * _BLOCK : (i + 1) * _BLOCK])):016x}" != sums[i]:
                    first = self.place(name) + i * _BLOCK
                    raise CheckpointError(
                        f"{self.path} is damaged: its {name}, bytes {first:,} to "
                        f"{first + _BLOCK - 1:,}, do not match their checksum",
                        hint=_REBUILD,
                    )

        pool.parallel_for(check, len(sums), 4)


# A checksum shows that a header is not damaged, but not that it is trustworthy. Kernels compute
# memory addresses from its values, so these are validated.


def _checked_header(data: bytes, size: int, block: int) -> dict[str, Any]:
    """Return the header of a file.

    Args:
        data: JSON with `kind`, `version`, `facts`, and the places of `arrays`.
        size: Size of the file in bytes.
        block: Bytes of each checksum.

    Raises:
        ValueError: It is no such JSON, or an array lies outside of the file.
    """
    try:
        content = json.loads(data)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    known = {"kind": str, "version": int, "facts": dict, "arrays": list}
    if not isinstance(content, dict) or any(
        type(content.get(name)) is not kind for name, kind in known.items()
    ):
        raise ValueError("its header lacks an entry")
    for fact, value in content["facts"].items():
        if type(value) is not int or abs(value) > _LARGEST_FACT:
            raise ValueError(f"its {fact} is {str(value)[:40]}")
    for entry in content["arrays"]:
        if not _is_entry(entry, size, block):
            raise ValueError("an array in its header is no array of the file")
    return content


def _is_entry(entry: Any, size: int, block: int) -> bool:
    known = {"name": str, "type": str, "shape": list, "place": int, "sums": list}
    if not isinstance(entry, dict):
        return False
    if any(type(entry.get(name)) is not kind for name, kind in known.items()):
        return False
    shape, place = entry["shape"], entry["place"]
    if entry["type"] not in _TYPES or place < 0 or len(shape) > 4:
        return False
    if not all(type(length) is int and 0 <= length <= _LARGEST_FACT for length in shape):
        return False
    length = math.prod(shape) * np.dtype(entry["type"]).itemsize
    return place + length <= size and len(entry["sums"]) == -(-length // block)


def fits_shape(
    arrays: Mapping[str, np.ndarray[Any, Any]], shapes: Mapping[str, tuple[Any, ...]]
) -> bool:
    """Return whether arrays have the given types and shapes; None stands for any length.

    >>> fits_shape({"a": np.zeros((3, 2), np.int32)}, {"a": (np.int32, 3, None)})
    True
    """
    return all(
        arrays[name].dtype == kind
        and arrays[name].ndim == len(shape)
        and all(want in (None, is_) for want, is_ in zip(shape, arrays[name].shape, strict=True))
        for name, (kind, *shape) in shapes.items()
    )
