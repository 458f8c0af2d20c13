"""Break valid inputs: their bytes, their words, and the structure of their JSON."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

__all__ = ["mutate", "mutate_bytes", "mutate_framed_json", "mutate_json", "mutate_value"]

_NUMBERS = (
    0,
    1,
    -1,
    2,
    127,
    255,
    256,
    65_535,
    2**31 - 1,
    -(2**31),
    2**32,
    2**63 - 1,
    2**63,
    10**30,
)
_VALUES: tuple[Any, ...] = (
    *_NUMBERS, None, True, False, "", "\0", "a" * 5000, "\ud800", "é", "../../x", "-1", "1e999",
    [], {}, [[]], {"": None}, [None] * 300, 0.5, -0.0, 1e308, float("nan"), float("inf"),
)  # fmt: skip
_PIECES = (
    b"", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n", b"\n", b"\t", b'"',
    b"'", b"\\", b"\\u", b"\\ud800", b"[", b"]", b"{", b"}", b",", b":", b"%", b"$", b"#", b"NaN",
    b"1e999", b"-", b"9" * 40, b"[" * 3000, b'{"a":' * 1500, b"\x00" * 64, b"\x7f" * 16,
)  # fmt: skip
_WORD = re.compile(rb"-?\d+(?:\.\d+)?|[A-Za-z_$][\w.$-]*|\"[^\"]*\"")


def mutate(seeds: Sequence[bytes], random: Random) -> bytes:
    """Return a seed with one to six mutations of bytes or words; sometimes as it is."""
    data = random.choice(seeds)
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 6))):
        data = random.choice((mutate_bytes, mutate_bytes, _mutate_word, _spliced(seeds)))(
            data, random
        )
    return data


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Change, insert, remove or repeat some bytes."""
    at = random.randrange(len(data) + 1)
    end = min(len(data), at + random.choice((1, 1, 2, 4, 8, 16, 64, 512)))
    part = data[at:end]
    match random.randrange(9):
        case 0:
            part = bytes([part[0] ^ (1 << random.randrange(8))]) + part[1:] if part else b"\0"
        case 1:
            part = random.randbytes(len(part))
        case 2:
            part = b""
        case 3:
            part = part * random.choice((2, 3, 50))
        case 4:
            part = random.choice(_PIECES) + part
        case 5:
            part = random.choice(_PIECES)
        case 6:
            return data[:at]
        case 7:
            number = random.choice(_NUMBERS) & (2**64 - 1)
            form = random.choice(("<I", ">I", "<Q", ">Q", "<H", "<B"))
            part = struct.pack(form, number & (256 ** struct.calcsize(form) - 1))
            end = min(len(data), at + len(part))
        case _:
            other = random.randrange(len(data) + 1)
            part = data[other : other + len(part)]
    return data[:at] + part + data[end:]


def _mutate_word(data: bytes, random: Random) -> bytes:
    """Replace a number, a name or a quoted text by another one of the input, or by a trap."""
    words = [match.span() for match in _WORD.finditer(data[: 1 << 16])]
    if not words:
        return mutate_bytes(data, random)
    start, end = random.choice(words)
    other = random.choice(words)
    new = random.choice((str(random.choice(_NUMBERS)).encode(), data[slice(*other)], b"", b'""'))
    return data[:start] + new + data[end:]


def _spliced(seeds: Sequence[bytes]) -> Callable[[bytes, Random], bytes]:
    def splice(data: bytes, random: Random) -> bytes:
        other = random.choice(seeds)
        return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]

    return splice


def mutate_json(seeds: Sequence[bytes], random: Random) -> bytes:
    """Return a JSON seed with changed values, keys or items; at times with changed bytes."""
    if random.random() < 0.3:
        return mutate(seeds, random)
    value = json.loads(random.choice(seeds))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        value = mutate_value(value, random)
    try:
        return json.dumps(value).encode()
    except RecursionError:  # nested more deeply than Python can write
        return mutate(seeds, random)


def mutate_value(value: Any, random: Random) -> Any:
    """Return a JSON value in which one part differs."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        match random.randrange(8):
            case 0:
                return {name: part for name, part in value.items() if name != key}
            case 1:
                return {**value, str(random.choice(_VALUES)): value[key]}
            case 2:
                return {**value, key: random.choice(list(value.values()))}
            case _:
                return {**value, key: mutate_value(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.9:
        at = random.randrange(len(value))
        match random.randrange(7):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value[:at], random.choice(value), *value[at:]]
            case 2:
                return value * 2
            case _:
                return [*value[:at], mutate_value(value[at], random), *value[at + 1 :]]
    if random.random() < 0.05:
        for _ in range(random.choice((3, 40, 900))):
            value = [value] if random.random() < 0.5 else {"a": value}
        return value
    if isinstance(value, str) and value and random.random() < 0.4:
        at = random.randrange(len(value))
        return (
            value[:at] + random.choice(("", "\0", "é", "\ud800", "x", "/", "..")) + value[at + 1 :]
        )
    return random.choice(_VALUES)


def mutate_framed_json(
    data: bytes, random: Random, *, start: int, length: int, frame: Callable[[bytes], bytes]
) -> bytes:
    """Change the JSON inside a binary file, and frame it again, so that its length is right.

    Args:
        data: The file.
        random: The source of choices.
        start: Where the JSON begins.
        length: Its length.
        frame: Returns the file with another JSON.
    """
    value = json.loads(data[start : start + length])
    for _ in range(random.choice((1, 1, 2, 3))):
        value = mutate_value(value, random)
    return frame(json.dumps(value).encode())
