"""`kernel`: numba's `njit` with a disk cache, so that a function compiles once per machine.

By default, numba writes its cache next to the source, which may be read-only. It also checks only
the source file of a function for changes, although a kernel inlines kernels of other files. Here,
the cache is in the user's cache folder, in a subfolder named after a hash of all sources of this
package, so any change recompiles everything. A kernel in another package is recompiled only if its
own file changes, so the kernels that it inlines must be in the same file. If no folder is writable,
every process compiles the kernels.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

__all__ = ["kernel", "kernel_folder", "release_compiler"]

_DISCARD = 4  # MADV_DONTNEED

_P = ParamSpec("_P")
_R = TypeVar("_R")


@lru_cache(maxsize=1)
def kernel_folder() -> Path | None:
    """Return the folder of compiled kernels, or None if no folder is writable.

    Try `NUMBA_CACHE_DIR`, then `XDG_CACHE_HOME`, then `~/.cache`. The folder must belong to this
    user, since code loaded from it is executed.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    candidates = [config.CACHE_DIR, os.environ.get("XDG_CACHE_HOME", "")]
    with contextlib.suppress(RuntimeError):  # the user has no home folder
        candidates.append(str(Path.home() / ".cache"))
    for root in filter(None, candidates):
        folder = Path(root) / "idiolect" / f"kernels-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
                continue
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return None


class _Locator(_CacheLocator):  # type: ignore[misc]
    """Point numba to `kernel_folder`."""

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        self._line, self._source = function.__code__.co_firstlineno, source

    def get_cache_path(self) -> str:
        return str(kernel_folder())

    def get_source_stamp(self) -> str:
        source = Path(self._source)
        return hashlib.sha256(source.read_bytes() if source.is_file() else b"").hexdigest()

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _Locator | None:
        return cls(function, source) if kernel_folder() else None


class _CacheImplementation(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache in `kernel_folder`; a failure to write to it is ignored."""

    _impl_class = _CacheImplementation

    def save_overload(self, signature: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(signature, data)


def kernel(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile a function on its first call; it releases the GIL.

    Division by zero follows NumPy. Indices are not checked.
    """
    compiled = njit(nogil=True, error_model="numpy")(function)
    if kernel_folder():
        compiled._cache = _Cache(function)
    return compiled  # type: ignore[no-any-return]


def release_compiler() -> None:
    """Release about 65 MB of unmodified pages of the LLVM library. Linux only.

    Loaded kernels do not need them. When another kernel is loaded, they are read from the file
    again.
    """
    for start, length in _compiler_pages():
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _DISCARD)


@lru_cache(maxsize=1)
def _compiler_pages() -> list[tuple[int, int]]:
    """Return the (address, length) of LLVM's mappings without modified pages."""
    found = []
    start = length = 0
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if part := re.match(r"([0-9a-f]+)-([0-9a-f]+) r-.p .*libllvmlite", line):
                start, length = int(part[1], 16), int(part[2], 16) - int(part[1], 16)
            elif re.match("[0-9a-f]+-", line):
                length = 0
            elif length and line.split() == ["Anonymous:", "0", "kB"]:
                found.append((start, length))
    return found
