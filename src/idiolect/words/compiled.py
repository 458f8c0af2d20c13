"""numba's decorator with a type, and the settings of all loops over words.

Arrays are not counted (`_nrt=False`). Otherwise each row that a loop passes to another function is
counted by an atomic addition, which took 35 % of the time of skip-gram and 60 % of CBOW's. So the
loops cannot make arrays; their callers pass buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled", "kernel"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile a loop that Python calls: without the interpreter's lock, kept on disk."""
    return cast(_Function, njit(_nrt=False, nogil=True, cache=True, error_model="numpy")(function))


def compiled(**settings: Any) -> Callable[[_Function], _Function]:
    """Compile a part of a loop.

    Arithmetic that may be reordered must not be inlined by numba, which would apply the settings
    of the caller; the compiler inlines it later.
    """
    return cast(Callable[[_Function], _Function], njit(_nrt=False, **settings))
