"""Check what the header of an index file says before it is believed.

Its checksum shows that it is not damaged, and not who wrote it: the kernels read memory at places
that are computed from these numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["checked_header", "fits_shape"]

_TYPES = frozenset(np.dtype(kind).str for kind in ["?", "u1", "u8", "i4", "i8", "f4", "f8"])
_LARGEST_FACT = 1 << 40


def checked_header(data: bytes, size: int, block: int) -> dict[str, Any]:
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
    """Return whether arrays have types and shapes; a length of None may be any.

    >>> fits_shape({"a": np.zeros((3, 2), np.int32)}, {"a": (np.int32, 3, None)})
    True
    """
    return all(
        arrays[name].dtype == kind
        and arrays[name].ndim == len(shape)
        and all(want in (None, is_) for want, is_ in zip(shape, arrays[name].shape, strict=True))
        for name, (kind, *shape) in shapes.items()
    )
