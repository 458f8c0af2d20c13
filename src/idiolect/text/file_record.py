"""`FileRecord`: a record of the files a step wrote, to detect missing or damaged ones later.

The record holds the size, modification times and hash of each file. A file whose size and times are
unchanged is assumed to be intact and is not read. A file with other times, such as a copy, is
hashed: it is intact if its bytes are the same. Files that are not in the record, which a user may
have added, are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["FileRecord"]

_BLOCK = 1 << 20


class FileRecord:
    """The recorded files of a folder.

    Args:
        files: `size`, `changed` and `hash` of each file, by its path in the folder. A file whose
            entry does not have this form, because the record is damaged, counts as damaged.
    """

    def __init__(self, files: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        known = files if isinstance(files, Mapping) else {}
        self.files = {name: _of_form(file) for name, file in known.items()}

    @classmethod
    def of(cls, folder: Path, names: Iterable[str] | None = None) -> FileRecord:
        """Record files of a folder.

        Args:
            folder: The folder.
            names: Paths in it; by default all files.
        """
        if names is None:
            found = (path for path in folder.rglob("*") if path.is_file())
            names = sorted(path.relative_to(folder).as_posix() for path in found)
        return cls({name: _describe(folder / name) for name in names})

    def damage(self, folder: Path) -> dict[str, str]:
        """Find the files that differ from the record, and update the recorded times of the others.

        Returns:
            The problem of each such file, such as `is missing`, by its path in the folder.
        """
        found = ((name, _problem(folder / name, file)) for name, file in self.files.items())
        return {name: problem for name, problem in found if problem}

    def digest(self, without: Iterable[str] = ()) -> str:
        """Hash the names and contents of the files.

        Args:
            without: Names of files and folders to leave out.
        """
        left_out = set(without)
        digest = hashlib.blake2b(digest_size=16)
        for name, file in sorted(self.files.items()):
            if not left_out & set(name.split("/")):
                digest.update(f"{name}\n{file.get('hash')}\n".encode())
        return digest.hexdigest()


def _of_form(file: Any) -> dict[str, Any]:
    return dict(file) if isinstance(file, Mapping) and "hash" in file else {}


def _describe(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "changed": _times(path), "hash": _hash(path)}


def _problem(path: Path, known: dict[str, Any]) -> str:
    """Return the problem of a file, or an empty string if it is intact."""
    if not path.is_file():
        return "is missing"
    try:
        size = path.stat().st_size
        if size != known.get("size"):
            return f"has {size:,} bytes instead of {known.get('size') or 0:,}"
        times = _times(path)
        if times == known.get("changed"):
            return ""
        if _hash(path) != known.get("hash"):
            return "has been changed"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    known["changed"] = times
    return ""


def _times(path: Path) -> list[int]:
    """Return the times of the last change of a file's content (mtime) and of its metadata (ctime).

    Programs cannot set the second, so an edit that restores the first is still detected.
    """
    found = path.stat()
    return [found.st_mtime_ns, found.st_ctime_ns]


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
