"""The metadata of a GGUF file, which is where llama.cpp keeps a vocabulary.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SCALARS = dict(enumerate(["<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"])) | {
    10: "<Q",
    11: "<q",
    12: "<d",
}


def read_metadata(path: Path) -> dict[str, Any]:
    data = gzip.decompress(path.read_bytes())
    assert data[:4] == b"GGUF"
    at = 16

    def scalar(code: str) -> Any:
        nonlocal at
        at += struct.calcsize(code)
        return struct.unpack_from(code, data, at - struct.calcsize(code))[0]

    def text() -> str:
        nonlocal at
        size = scalar("<Q")
        at += size
        return data[at - size : at].decode()

    def value(kind: int) -> Any:
        if kind == 8:
            return text()
        if kind == 9:
            inner, count = scalar("<I"), scalar("<Q")
            return [value(inner) for _ in range(count)]
        return scalar(SCALARS[kind])

    return {text(): value(scalar("<I")) for _ in range(scalar("<Q"))}
