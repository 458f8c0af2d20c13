"""The protobuf wire format, as much of it as reading a SentencePiece model takes.

A message is a run of fields: a tag (field number and wire type), then a varint, 4 or 8 bytes, or a
length and that many bytes. What the fields mean is the reader's business. Damaged input raises
`ValueError`, never anything else, and nothing is allocated beyond the input's own size.
Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Value", "fields", "last"]

Value = int | float | bytes


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Walk through a message.

    Yields:
        For each field its number and its value: an `int` for a varint (unsigned) or 8 fixed bytes,
        a `float` for 4 fixed bytes, `bytes` for anything with a length.

    Raises:
        ValueError: the message ends early, or holds a wire type that is no longer in use.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ValueError(f"field number 0 at byte {at}")
        if wire_type == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = _varint(message, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {at}")
        if at + size > len(message):
            raise ValueError(f"field {number} at byte {at} runs past the end")
        data = message[at : at + size]
        at += size
        if wire_type == 2:
            yield number, data
        elif wire_type == 1:
            yield number, int.from_bytes(data, "little")
        else:
            yield number, struct.unpack("<f", data)[0]


def last(message: bytes) -> dict[int, Value]:
    """Collect the fields of a message, the last value of each, as its readers must."""
    return dict(fields(message))


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a number runs past the end")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError(f"a number of more than ten bytes before byte {at}")
