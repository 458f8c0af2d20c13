"""Divide a memory limit: choose the code length of a disk graph and the size of its shards."""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from idiolect.errors import InputError

__all__ = [
    "LEDGER_CACHE",
    "MemoryPlan",
    "_format_size",
    "parse_size",
    "plan_memory",
    "resident_memory",
]

LEDGER_CACHE = 8 << 20
"""Bytes that SQLite caches for each thread that uses the ledger of an index on disk."""

_ROW = 17  # bytes per row besides its code: ledger row, label, masks and visited marks
_LEAST = 256 << 20  # default minimum of bytes for building


@dataclass(frozen=True)
class MemoryPlan:
    """The memory settings of a merge."""

    available: int
    """Bytes that the merge may use."""
    code_width: int
    """Dimensions per byte of the codes in memory."""
    shard_rows: int
    """The number of vectors whose graph is built at once."""


def plan_memory(limit: int | None, rows: int, dimensions: int, unmerged: int) -> MemoryPlan:
    """Plan the merge of a disk graph.

    Args:
        limit: memory of the whole process in bytes; by default its current memory plus an eighth of
            the vectors, or plus 256 MiB if that is more.
        rows: number of rows of the next graph.
        dimensions: width of the vectors.
        unmerged: number of vectors that a search holds in memory.

    Raises:
        InputError: the limit is too small; the message has the smallest sufficient limit.
    """
    from idiolect.search.diskann.disk.partitioned_build import MIN_SHARD, shard_bytes
    from idiolect.search.diskann.jit import release_compiler
    from idiolect.search.diskann.product_codes import code_widths

    release_compiler()
    used = resident_memory()
    if limit is None:
        limit = used + max(rows * dimensions // 2, _LEAST)
    available = limit - used
    fixed = 2 * LEDGER_CACHE + 10 * dimensions * unmerged
    building = min(rows, MIN_SHARD) * shard_bytes(dimensions)
    for width in code_widths(dimensions):
        searching = rows * (-(-dimensions // width) + _ROW)
        least = fixed + max(searching, building)
        if least <= available:
            shard = (available - fixed) // shard_bytes(dimensions)
            return MemoryPlan(available - fixed, width, int(shard))
    raise InputError(
        f"the memory limit of {_format_size(limit)} is too small for {rows:,} vectors of"
        f" {dimensions} dimensions",
        hint=f"the least that works is {_format_size(used + least)}"
        f" ({_format_size(used)} are used already)",
    )


def resident_memory() -> int:
    """Return the resident memory of this process in bytes."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def parse_size(size: int | str) -> int:
    """Return a number of bytes, given as a number or as a text with a unit.

    >>> parse_size("2GB"), parse_size("1.5 MiB"), parse_size("300"), parse_size(300)
    (2000000000, 1572864, 300, 300)

    Raises:
        InputError: the text is not a size, or the size is below 1.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b)?\s*", str(size), re.IGNORECASE)
    bytes_ = 0
    if match:
        power = " kmgt".index((match[2] or " ").lower())
        bytes_ = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if bytes_ < 1:
        raise InputError(f"{size!r} is not a size of memory", hint="for example 2GB or 500MB")
    return bytes_


def _format_size(size: int) -> str:
    """Return a size in MB, rounded up."""
    return f"{-(-size // 10**6):,} MB"
