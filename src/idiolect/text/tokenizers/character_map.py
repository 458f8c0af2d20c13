"""Check SentencePiece's compiled character map before the engine uses it.

The map consists of four bytes of size, a double-array trie (Aoe 1989, in the layout of darts-clone)
from UTF-8 strings to offsets, and the zero-terminated replacements at those offsets. The engine
does not check it: a damaged map would abort the process in the middle of a text.
"""

from __future__ import annotations

import numpy as np

__all__ = ["check"]


def check(character_map: bytes) -> None:
    """Check that no text can lead outside the map.

    Raises:
        ValueError: a transition or a replacement is outside it.
    """
    if not character_map:
        return
    size = int.from_bytes(character_map[:4], "little")
    if size % 4 or size == 0 or 4 + size >= len(character_map):
        raise ValueError("the character map is shorter than its trie")
    replacements = np.frombuffer(character_map, np.uint8, offset=4 + size)
    if replacements[-1] != 0:
        raise ValueError("the character map's last replacement is not terminated")
    units = np.frombuffer(character_map, "<u4", size // 4, offset=4).astype(np.int64)
    # A unit: bit 31 marks a value; otherwise bits 10-30 are the offset of the children (in units of
    # 256 if bit 9 is set), bit 8 marks that one child is a value, and bits 0-7 are the label.
    inner = np.flatnonzero(units < 1 << 31)
    if units[0] >= 1 << 31:
        raise ValueError("the character map's trie has no root")
    node = units[inner]
    children = inner ^ ((node >> 10) << ((node & 0x200) >> 6))
    if np.any((children | 0xFF) >= len(units)):
        raise ValueError("the character map's trie leads outside it")
    offsets = units[children[(node & 0x100) != 0]] & 0x7FFF_FFFF
    if np.any(offsets >= len(replacements)) or np.any(replacements[offsets] & 0xC0 == 0x80):
        raise ValueError("the character map refers to a replacement outside it")
