"""Compile a function to machine code once for a machine, not once a process.

numba can keep compiled code on disk, but it puts it beside the source (which may be read-only) and
decides whether it is stale from the one file the function stands in, although a kernel inlines
kernels of other files. Here the code goes to the user's cache folder, in a subfolder named by a
hash of all sources of this package: change one and everything is compiled anew. Where nothing can
be written, kernels are compiled in every process and work all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

__all__ = ["kernel", "kernel_folder"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


@lru_cache(maxsize=1)
def kernel_folder() -> Path | None:
    """Return where compiled kernels are kept, or None where no folder can be written.

    `NUMBA_CACHE_DIR` goes first, then `XDG_CACHE_HOME`, then `~/.cache`. Only a folder of this
    user's own is trusted, since what is loaded from it is executed.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    candidates = [config.CACHE_DIR, os.environ.get("XDG_CACHE_HOME", "")]
    with contextlib.suppress(RuntimeError):  # a user without a home
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
    """Tell numba about the folder above."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(kernel_folder())

    def get_source_stamp(self) -> str:
        return kernel_folder().name  # type: ignore[union-attr]

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _Locator | None:
        return cls(function) if kernel_folder() else None


class _CacheImplementation(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache, in our folder; a disk that fills up costs time and nothing else."""

    _impl_class = _CacheImplementation

    def save_overload(self, signature: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(signature, data)


def kernel(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile a function on its first call; it runs without Python's global lock.

    Divisions by zero give infinity as in NumPy, indices are not checked.
    """
    compiled = njit(nogil=True, error_model="numpy")(function)
    if kernel_folder():
        compiled._cache = _Cache(function)
    return compiled  # type: ignore[no-any-return]
