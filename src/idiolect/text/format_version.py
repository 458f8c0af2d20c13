"""Format versions of the files that this package writes.

A record states its format version under the key `format`; without this key it is version 1. An
unknown version is an error that names the version, instead of being misread.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idiolect.errors import CheckpointError

__all__ = ["check_format", "with_format"]


def with_format(record: Mapping[str, Any], version: int = 1) -> dict[str, Any]:
    """Return a record with its format version as the first entry."""
    return {"format": version, **record}


def check_format(
    record: Mapping[str, Any],
    path: Path,
    *,
    oldest: int = 1,
    newest: int = 1,
    rebuild: str = "write it again with this version",
) -> dict[str, Any]:
    """Return a record without its format version, after checking that the version can be read.

    Args:
        record: The contents of the file.
        path: The file, for messages.
        oldest: The oldest version that can be read.
        newest: The newest version that can be read.
        rebuild: What to do about an older file.

    Raises:
        CheckpointError: The version is newer or older than can be read, or is not a number.
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
