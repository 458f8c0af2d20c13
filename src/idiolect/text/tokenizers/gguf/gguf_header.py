"""Read the header of a GGUF file: its metadata, and where each tensor lies.

The files are untrusted, so every count, length and offset is checked against the file's size before
memory is allocated or a value is used.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idiolect.errors import CheckpointError

__all__ = ["GGUFHeader", "TensorEntry", "read_gguf_header"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_MAX_NESTING = 4
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class TensorEntry:
    """The location and storage type of a tensor in the file."""

    shape: tuple[int, ...]
    """The shape as in NumPy and torch; the file lists the dimensions in reverse."""
    type: int
    """ggml's number of its storage type, such as 0 for float32."""
    offset: int
    """Offset of its first byte from the beginning of the file."""


@dataclass(frozen=True)
class GGUFHeader:
    """The metadata and the tensors of a GGUF file."""

    path: Path
    metadata: Mapping[str, Any]
    """Values by key, such as `general.architecture`."""
    tensors: Mapping[str, TensorEntry]
    """The tensors by name. Their types and sizes in bytes have not been checked yet."""
    size: int
    """The size of the file, in bytes."""


def read_gguf_header(path: Path) -> GGUFHeader:
    """Read the metadata and the list of tensors; the tensors themselves are not read.

    Raises:
        CheckpointError: The file is not a GGUF file of version 2 or 3, is truncated, or contains a
            size that contradicts the file's size.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(data, path).header()
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror}", hint="check the path and its permissions"
        ) from error
    except ValueError as error:  # an empty file cannot be mapped; text that is not UTF-8
        raise _damaged(path, str(error)) from error


class _Cursor:
    """A position in the memory-mapped file; each read is checked against the file's end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.at = 0

    def header(self) -> GGUFHeader:
        if self.take(4) != _MAGIC:
            raise CheckpointError(f"{self.path} is not a GGUF file", hint="check the path")
        version = self.scalar("<I")
        if version not in _VERSIONS:
            raise CheckpointError(
                f"{self.path} is GGUF of version {version}",
                hint="versions 2 and 3 in little-endian byte order are supported; convert it again",
            )
        tensor_count, key_count = self.scalar("<Q"), self.scalar("<Q")
        metadata = dict(self.unique(self.pair, key_count, "key"))
        tensors = dict(self.unique(self.tensor, tensor_count, "tensor"))
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
            raise _damaged(self.path, f"the alignment is {alignment!r}")
        start = -(-self.at // alignment) * alignment
        placed = {}
        for name, entry in tensors.items():
            if entry.offset % alignment or start + entry.offset > len(self.data):
                raise _damaged(self.path, f"{name} begins at {entry.offset}")
            placed[name] = TensorEntry(entry.shape, entry.type, start + entry.offset)
        return GGUFHeader(self.path, metadata, placed, len(self.data))

    def unique(self, read: Any, count: int, kind: str) -> list[tuple[str, Any]]:
        """Read entries with unique names; the smallest possible entry takes 12 bytes."""
        self.check(count, 12)
        entries = [read() for _ in range(count)]
        if len({name for name, _ in entries}) < count:
            raise _damaged(self.path, f"a {kind} occurs twice")
        return entries

    def pair(self) -> tuple[str, Any]:
        return self.string(), self.value(self.scalar("<I"))

    def tensor(self) -> tuple[str, TensorEntry]:
        name, rank = self.string(), self.scalar("<I")
        if not 1 <= rank <= _MAX_DIMENSIONS:
            raise _damaged(self.path, f"{name} has {rank} dimensions")
        shape = tuple(self.scalar("<Q") for _ in range(rank))[::-1]
        # No storage type takes less than an eighth of a byte for each number.
        if not 0 < math.prod(shape) <= 8 * len(self.data):
            raise _damaged(self.path, f"{name} has the shape {shape}")
        return name, TensorEntry(shape, self.scalar("<I"), self.scalar("<Q"))

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(depth)
        if kind not in _SCALARS:
            raise _damaged(self.path, f"a value has the type {kind}")
        return self.scalar(_SCALARS[kind])

    def array(self, depth: int) -> list[Any]:
        kind, count = self.scalar("<I"), self.scalar("<Q")
        if kind in _SCALARS:
            code = _SCALARS[kind]
            self.check(count, struct.calcsize(code))
            return [value for (value,) in struct.iter_unpack(code, self.take_items(code, count))]
        if depth == _MAX_NESTING:
            raise _damaged(self.path, f"an array has more than {_MAX_NESTING} levels")
        self.check(count, 8)
        return [self.value(kind, depth + 1) for _ in range(count)]

    def string(self) -> str:
        return self.take(self.scalar("<Q")).decode()

    def scalar(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def take_items(self, code: str, count: int) -> bytes:
        return self.take(count * struct.calcsize(code))

    def take(self, size: int) -> bytes:
        self.check(size, 1)
        self.at += size
        return self.data[self.at - size : self.at]

    def check(self, count: int, size: int) -> None:
        """Raise an error if the rest of the file cannot hold this number of entries."""
        if count * size > len(self.data) - self.at:
            raise _damaged(self.path, f"it ends before entry {count} at byte {self.at}")


def _damaged(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path} is truncated or damaged: {problem}", hint="fetch it again")
