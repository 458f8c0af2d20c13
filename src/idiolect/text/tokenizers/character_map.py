"""SentencePiece's compiled character map, checked before the engine walks through it.

The map is four bytes of size, a double-array trie (Aoe 1989, in the layout of darts-clone) from
UTF-8 strings to places, and the replacements at those places, each ended by a zero byte. The engine
trusts it: a damaged one would abort the process in the middle of a text.
"""

from __future__ import annotations

import numpy as np

__all__ = ["check"]


def check(charsmap: bytes) -> None:
    """Make sure that no text can lead out of the map.

    Raises:
        ValueError: a step or a replacement lies outside it.
    """
    if not charsmap:
        return
    size = int.from_bytes(charsmap[:4], "little")
    if size % 4 or size == 0 or 4 + size >= len(charsmap):
        raise ValueError("the character map's trie does not fit into it")
    replacements = np.frombuffer(charsmap, np.uint8, offset=4 + size)
    if replacements[-1] != 0:
        raise ValueError("the character map's last replacement has no end")
    units = np.frombuffer(charsmap, "<u4", size // 4, offset=4).astype(np.int64)
    # A unit: bit 31 marks a value; else bits 10-30 are the way to the children (in steps of 256
    # if bit 9 is set), bit 8 says that one child is a value, and bits 0-7 are the unit's label.
    inner = np.flatnonzero(units < 1 << 31)
    if units[0] >= 1 << 31:
        raise ValueError("the character map's trie has no root")
    node = units[inner]
    children = inner ^ ((node >> 10) << ((node & 0x200) >> 6))
    if np.any((children | 0xFF) >= len(units)):
        raise ValueError("the character map's trie leads out of it")
    places = units[children[(node & 0x100) != 0]] & 0x7FFF_FFFF
    if np.any(places >= len(replacements)) or np.any(replacements[places] & 0xC0 == 0x80):
        raise ValueError("the character map names a replacement that is not there")
