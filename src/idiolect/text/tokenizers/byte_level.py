r"""The byte-level alphabet of GPT-2: one printable character for each of the 256 bytes.

Byte-level BPE works on these characters, so that every text can be encoded. A byte that is a
printable character of Latin-1 is written as that character. The 68 others, including the space,
are written as the code points from 256 up.

>>> to_characters(b" na\xc3\xafve")
'ĠnaÃ¯ve'
>>> to_bytes("ĠnaÃ¯ve").decode()
' naïve'
"""

from __future__ import annotations

from idiolect.errors import InputError

__all__ = ["to_bytes", "to_characters"]


def _alphabet() -> list[str]:
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


_CHARACTERS = _alphabet()
_BYTES = {ord(character): byte for byte, character in enumerate(_CHARACTERS)}


def to_characters(data: bytes) -> str:
    """Write bytes in the byte-level alphabet."""
    return "".join([_CHARACTERS[byte] for byte in data])


def to_bytes(characters: str) -> bytes:
    """Read the byte-level alphabet back into bytes.

    Raises:
        InputError: a character is not in the alphabet.
    """
    try:
        return bytes([_BYTES[ord(character)] for character in characters])
    except KeyError as error:
        raise InputError(
            f"{characters!r} is not in the byte-level alphabet", hint="is this a special token?"
        ) from error
