"""numba's decorators with types, and the settings of all compiled loops.

Reference counting of arrays is off (`_nrt=False`). Otherwise each row that a loop passes to another
function costs an atomic increment, which took 35 % of the time of skip-gram and 60 % of CBOW.
Therefore the loops cannot allocate arrays; their callers pass buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["compiled", "kernel"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile a loop that Python calls: it releases the GIL and is cached on disk."""
    return cast(_Function, njit(_nrt=False, nogil=True, cache=True, error_model="numpy")(function))


def compiled(**settings: Any) -> Callable[[_Function], _Function]:
    """Compile a function that loops call.

    Arithmetic that may be reordered must not be inlined by numba, which would apply the caller's
    settings; the compiler inlines it later.
    """
    return cast(Callable[[_Function], _Function], njit(_nrt=False, **settings))
