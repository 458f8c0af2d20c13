"""Versions of the files that this package writes.

A record names the version of its format under `format`. One without it was written before versions
were recorded, and is of version 1. Programs read versions that they know, and refuse others by name
instead of reading what they would misunderstand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idiolect.errors import CheckpointError

__all__ = ["check_format", "with_format"]


def with_format(record: Mapping[str, Any], version: int = 1) -> dict[str, Any]:
    """Return a record with the version of its format, which comes first."""
    return {"format": version, **record}


def check_format(
    record: Mapping[str, Any],
    path: Path,
    *,
    oldest: int = 1,
    newest: int = 1,
    rebuild: str = "write it again with this version",
) -> dict[str, Any]:
    """Return a record without the version of its format, if this program can read it.

    Args:
        record: What a file holds.
        path: The file, for messages.
        oldest: The oldest version that can be read.
        newest: The newest one.
        rebuild: What to do about an older file.

    Raises:
        CheckpointError: The file is of a newer or of an older version, or its version is no number.
    """
    values = dict(record)
    version = values.pop("format", 1)
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{path} is damaged: its format is {version!r}", hint=rebuild)
    if version > newest:
        raise CheckpointError(
            f"{path} is of format {version}, written by a newer idiolect; this one reads up to "
            f"format {newest}",
            hint="update idiolect",
        )
    if version < oldest:
        raise CheckpointError(
            f"{path} is of format {version}, written by an older idiolect; this one reads format "
            f"{oldest} and above",
            hint=rebuild,
        )
    return values
