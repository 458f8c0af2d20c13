"""numba's decorator with a type, and the settings of all loops over words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled", "kernel"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile a loop that Python calls: without the interpreter's lock, kept on disk."""
    return cast(_Function, njit(nogil=True, cache=True, error_model="numpy")(function))


def compiled(**settings: Any) -> Callable[[_Function], _Function]:
    """Compile a part of a loop.

    Arithmetic that may be reordered must not be inlined by numba, which would apply the settings
    of the caller; the compiler inlines it later.
    """
    return cast(Callable[[_Function], _Function], njit(**settings))
