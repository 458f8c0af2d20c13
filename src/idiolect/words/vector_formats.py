"""Files of word vectors. Every number in a file is validated before memory is allocated for it.

| format | content |
|---|---|
| safetensors | tensors `vectors`, `words` (UTF-8, one per line), `counts`, `ngram_table` |
| word2vec text | `words dimensions`, then `word x x x` on each line |
| word2vec binary | the same first line, then `word`, a space and float32 numbers |
| GloVe text | as word2vec text, without the first line |

Gensim's `.kv` is a pickle, which could execute arbitrary code, and is rejected.
"""

from __future__ import annotations

import gzip
import json
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.text.files import write_atomic
from idiolect.text.format_version import check_format

__all__ = ["VectorTable", "holds_vectors", "read_vectors", "write_vectors"]

_MAX_WIDTH = 100_000
_MAX_WORD = 10_000
_MAX_HEADER = 1 << 20
_ROOM = 1 << 16
_VERSION = 1
"""Version of the safetensors file's layout."""


@dataclass(frozen=True)
class VectorTable:
    """The content of a file of word vectors."""

    words: list[str]
    vectors: NDArray[Any]
    counts: NDArray[Any] | None = None
    ngrams: tuple[int, int, int] | None = None
    """Shortest and longest n-gram, and number of buckets."""
    ngram_table: NDArray[Any] | None = None


def read_vectors(path: Path) -> VectorTable:
    """Read a file in any of these formats.

    Raises:
        InputError: The file is missing, damaged (the message names the line or word), or a pickle.
    """
    try:
        return _read(path)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {path}: {reason}", hint="check the file") from error


def _read(path: Path) -> VectorTable:
    with _open(path) as file:
        head = file.read(2048)
    if not head:
        raise InputError(f"{path} is empty", hint="train or fetch the vectors again")
    # Check this first: the header length may begin with the same byte as a pickle.
    if head[7:9] == b"\0{":
        return _read_safetensors(path)
    if _is_pickle(head):
        raise InputError(
            f"{path} is a pickle, which could run any code",
            hint="save it from gensim with save_word2vec_format(FILE, binary=True)",
        )
    with _open(path) as file:
        first = file.readline(_MAX_HEADER)
        size = _header(first, path)
        if size is None:
            return _read_text(_lines(file, first), None, path, 1)
        if _is_text(file.readline(_MAX_HEADER), size[1]):
            file.seek(len(first))
            return _read_text(_lines(file), size, path, 2)
        file.seek(len(first))
        return _read_binary(file, size, path)


def holds_vectors(path: Path) -> bool:
    """Return whether the beginning of a file looks like vectors rather than a word test set.

    A row of vectors has one word and numbers; a test set has at least two words in each row.
    """
    try:
        with _open(path) as file:
            head = file.read(8)
            if (len(head) == 8 and head[7] == 0) or _is_pickle(head):
                return True  # safetensors, or a pickle, which `read_vectors` rejects with a reason
            file.seek(0)
            first = file.readline(_MAX_HEADER)
    except (OSError, EOFError, zlib.error):
        return False
    parts = first.split()
    is_row = len(parts) > 2 and b"," not in parts[0] and _all_numbers(parts[1:])
    return is_row or _header(first, path) is not None


def _is_pickle(head: bytes) -> bool:
    """Return whether a file begins as a pickle, or as a zip file, such as torch and NumPy write.

    "PK" may also begin a word; in a zip file, two bytes of at most 8 follow it.
    """
    return head[:1] == b"\x80" or (head[:2] == b"PK" and len(head) > 3 and max(head[2:4]) < 9)


def _open(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _header(line: bytes, path: Path) -> tuple[int, int] | None:
    """Return the number of words and the width from a header line; None if it is a vector."""
    parts = line.split()
    if len(parts) != 2:
        return None
    try:
        words, width = int(parts[0]), int(parts[1])
    except ValueError:
        return None
    if not 1 <= words <= 2**31 or not 1 <= width <= _MAX_WIDTH:
        raise InputError(
            f"the first line of {path} announces {words} words of {width} dimensions",
            hint="the file is damaged; fetch it again",
        )
    return words, width


def _is_text(line: bytes, width: int) -> bool:
    """Return whether a line is a word with numbers, even if too few or not finite."""
    parts = line.rstrip().rsplit(b" ", width)
    return len(parts) > 1 and _all_numbers(parts[1:])


def _lines(file: IO[bytes], first: bytes = b"") -> Iterator[bytes]:
    if first:
        yield first
    while line := file.readline(_MAX_HEADER):
        yield line


def _read_text(
    lines: Iterator[bytes], size: tuple[int, int] | None, path: Path, first: int
) -> VectorTable:
    words: list[str] = []
    blocks: list[NDArray[np.float32]] = []
    seen: dict[str, int] = {}
    held: list[NDArray[np.float32]] = []
    width = size[1] if size else 0
    for number, line in enumerate(lines, first):
        where = f"line {number:,} of {path}"
        parts = line.rstrip(b"\r\n").rstrip(b" ").split(b" ")
        width = width or len(parts) - 1
        if len(parts) > width + 1 and not _all_numbers(parts[1:]):
            name = b" ".join(parts[:-width]).decode("utf-8", "replace")
            raise InputError(f"{where}: the word {name!r} has a space", hint="join it by _")
        if len(parts) != width + 1 or not width:
            raise InputError(
                f"{where} has {len(parts) - 1} numbers, not {width}",
                hint="remove the line, or fetch the file again",
            )
        word = _decode(parts[0], where)
        if word in seen:
            raise InputError(
                f"{where}: the word {word!r} is also on line {seen[word]:,}", hint="keep one"
            )
        seen[word] = number
        held.append(_numbers(parts[1:], where))
        words.append(word)
        if len(held) == _ROOM:
            blocks.append(np.stack(held))
            held = []
    if held:
        blocks.append(np.stack(held))
    if not words or (size and len(words) != size[0]):
        announced = f"{size[0]:,}" if size else "some"
        raise InputError(
            f"{path} has {len(words):,} vectors, but its first line announces {announced}",
            hint="the file is incomplete; fetch it again",
        )
    return VectorTable(words, np.concatenate(blocks))


def _all_numbers(parts: list[bytes]) -> bool:
    try:
        for part in parts:
            float(part)
    except ValueError:
        return False
    return True


def _numbers(parts: list[bytes], where: str) -> NDArray[np.float32]:
    try:
        row = np.array([float(part) for part in parts], np.float64)
    except ValueError as error:
        raise InputError(f"{where}: {error}", hint="each word has its numbers after it") from error
    if not (np.abs(row) < 3e38).all():
        raise InputError(
            f"{where} has NaN or an infinite number", hint="remove the line, or train again"
        )
    return row.astype(np.float32)


def _decode(word: bytes, where: str) -> str:
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: the word is not UTF-8", hint="convert the file") from error


def _read_binary(file: IO[bytes], size: tuple[int, int], path: Path) -> VectorTable:
    count, width = size
    words: list[str] = []
    seen: dict[str, int] = {}
    blocks: list[NDArray[np.float32]] = []
    held: list[NDArray[np.float32]] = []
    buffer, place = b"", 0
    for number in range(1, count + 1):
        where = f"word {number:,} of {path}"
        while (end := buffer.find(b" ", place)) < 0 or len(buffer) < end + 1 + 4 * width:
            if end < 0 and len(buffer) - place > _MAX_WORD:
                raise InputError(f"{where} never ends", hint="the file is damaged")
            more = file.read(_MAX_HEADER)
            if not more:
                raise InputError(
                    f"{path} ends at word {number:,} of {count:,}",
                    hint="the file is incomplete; fetch it again",
                )
            buffer, place = buffer[place:] + more, 0
        word = _decode(buffer[place:end].lstrip(b"\n"), where)
        row = np.frombuffer(buffer, "<f4", width, end + 1)
        place = end + 1 + 4 * width
        if word in seen:
            raise InputError(f"{where}: {word!r} is also word {seen[word]:,}", hint="keep one")
        seen[word] = number
        words.append(word)
        held.append(row.astype(np.float32))
        if len(held) == _ROOM:
            blocks.append(np.stack(held))
            held = []
    if held:
        blocks.append(np.stack(held))
    return VectorTable(words, np.concatenate(blocks))


_TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
    "I64": np.dtype("<i8"),
}


def _read_safetensors(path: Path) -> VectorTable:
    if path.name.endswith(".gz"):
        raise InputError(f"{path} is compressed safetensors", hint="unpack it with gunzip")
    try:
        header, begin = _safetensors_header(path)
        version = header.get("__metadata__", {}).get("version", "1")
        check_format({"format": int(version)}, path, newest=_VERSION)
        tensors = {
            name: _map_tensor(path, entry, begin)
            for name, entry in header.items()
            if name in ("vectors", "words", "counts", "ngram_table")
        }
        words = bytes(tensors["words"]).decode("utf-8").split("\n")
        vectors = tensors["vectors"]
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ValueError(f"vectors have shape {vectors.shape}")
        if "counts" in tensors and tensors["counts"].shape != (len(words),):
            raise ValueError(f"counts have shape {tensors['counts'].shape}")
        sizes = header.get("__metadata__", {}).get("ngrams")
        ngrams = tuple(int(one) for one in sizes.split(",")) if sizes else None
        if ngrams is not None:
            table = tensors["ngram_table"]
            if len(ngrams) != 3 or table.shape != (ngrams[2], vectors.shape[1]):
                raise ValueError(f"n-grams {ngrams} do not fit a table of shape {table.shape}")
            if not 1 <= ngrams[0] <= ngrams[1] <= 50:
                raise ValueError(f"n-grams of {ngrams[0]} to {ngrams[1]} characters")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is no file of word vectors: {type(error).__name__}: {error}",
            hint="it needs tensors vectors (float32) and words (UTF-8, a line each)",
        ) from error
    return VectorTable(
        words,
        vectors,
        tensors.get("counts"),
        ngrams,
        tensors.get("ngram_table"),
    )


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _MAX_HEADER:
            raise ValueError(f"a header of {length:,} bytes")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise TypeError("the header is no object")
    return header, 8 + length


def _map_tensor(path: Path, entry: dict[str, Any], begin: int) -> NDArray[Any]:
    dtype, shape = _TYPES[entry["dtype"]], tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if not all(isinstance(one, int) and one >= 0 for one in (*shape, first, last)):
        raise ValueError("a negative size")
    if last - first != math.prod(shape) * dtype.itemsize or begin + last > path.stat().st_size:
        raise ValueError("offsets beyond the file")
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, mode="r", offset=begin + first, shape=shape)


def write_vectors(path: Path, table: VectorTable) -> None:
    """Write a file in the format of its extension; see `WordVectors.save`.

    Raises:
        InputError: The folder does not exist or cannot be written to.
    """
    is_rows = path.suffix in (".txt", ".vec", ".glove", ".bin")
    data = _rows(table, path.suffix) if is_rows else _tensors(table)
    try:
        write_atomic(path, data)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", hint="check the folder and its space"
        ) from error


def _rows(table: VectorTable, suffix: str) -> Iterator[bytes]:
    if suffix != ".glove":
        yield f"{len(table.words)} {table.vectors.shape[1]}\n".encode()
    for word, row in zip(table.words, table.vectors, strict=True):
        if suffix == ".bin":
            yield word.encode() + b" " + row.astype("<f4").tobytes() + b"\n"
        else:
            yield f"{word} {' '.join(map(str, row))}\n".encode()


def _tensors(table: VectorTable) -> Iterator[bytes | memoryview]:
    """Write safetensors in blocks; the library's own writer would copy all tensors in memory."""
    tensors: dict[str, NDArray[Any]] = {"vectors": table.vectors}
    if table.ngram_table is not None:
        tensors["ngram_table"] = table.ngram_table
    if table.counts is not None:
        tensors["counts"] = table.counts
    tensors["words"] = np.frombuffer("\n".join(table.words).encode(), np.uint8)
    metadata = {"format": "word-vectors", "version": str(_VERSION)}
    if table.ngrams:
        metadata["ngrams"] = ",".join(map(str, table.ngrams))
    header: dict[str, Any] = {"__metadata__": metadata}
    stored, end = {}, 0
    for name, array in tensors.items():
        kind = {"words": "U8", "counts": "I64"}.get(name, "F32")
        stored[name], begin = _TYPES[kind], end
        end += array.size * _TYPES[kind].itemsize
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name, array in tensors.items():
        for start in range(0, len(array), _ROOM):
            block = np.ascontiguousarray(array[start : start + _ROOM], stored[name])
            yield block.data.cast("B")
