"""Parse the protobuf wire format, as far as SentencePiece models need it.

A message is a sequence of fields: a tag (field number and wire type), then a varint, 4 or 8 bytes,
or a length and that many bytes. The caller knows the meaning of the fields. Damaged input raises
`ValueError` and no other error, and no more memory than the input's size is allocated.
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
    """Iterate over the fields of a message.

    Yields:
        Number and value of each field: an `int` for a varint (unsigned) or 8 fixed bytes, a `float`
        for 4 fixed bytes, `bytes` for a field with a length.

    Raises:
        ValueError: the message ends early, or has an obsolete wire type.
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
    """Collect the fields of a message; of repeated ones the last value, as the format requires."""
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
