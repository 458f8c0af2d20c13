"""`RowMask`: the rows that a filtered search may return."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError

__all__ = ["RowMask", "check_mask"]


class RowMask:
    """A set of rows of a graph.

    Values that a search derives from the mask are cached, so searches with the same filter should
    share one `RowMask`.

    Args:
        mask: bool (rows,), True for the rows in the set.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self.count = int(np.count_nonzero(mask))
        self._common: tuple[NDArray[np.int32], int] | None = None

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows of the set, ascending."""
        return np.flatnonzero(self.mask)

    def common_value(self, values: NDArray[np.int32]) -> int:
        """Return the common value of all rows of the set in `values` (rows,), or -1; cached."""
        known = self._common
        if known is None or known[0] is not values:
            own = values[self.rows]
            common = int(own[0]) if len(own) and (own == own[0]).all() else -1
            known = self._common = values, common
        return known[1]


def check_mask(mask: RowMask | NDArray[np.bool_] | None, alive: NDArray[np.bool_]) -> RowMask:
    """Return the searchable rows: not deleted, and in `mask` if there is one.

    Raises:
        InputError: the mask has another type or length.
    """
    if mask is None:
        return RowMask(alive)
    given = mask.mask if isinstance(mask, RowMask) else mask
    if given.dtype != np.bool_ or given.shape != alive.shape:
        raise InputError(
            f"the mask is {given.dtype} of shape {given.shape}",
            hint=f"use bool of shape {alive.shape}",
        )
    if isinstance(mask, RowMask) and alive[mask.rows].all():
        return mask
    return RowMask(given & alive)
