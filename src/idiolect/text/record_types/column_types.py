r"""Infer the type of each column of text cells, such as those of a CSV file.

All cells of a column get the same type, so that filters compare values of one type. It is the first
of the types below that fits every cell of the column. An empty cell is a missing value. So are, in
a column that is not text, the markers `NA` (R), `NaN` (pandas), `NULL` and `\N` (databases) and
`None`.

- integer: digits without leading zeros or a plus, up to 2⁵³, which floats represent exactly
- number: digits with a decimal point, an exponent with a sign, or both: `12.50`, `1e-05`
- boolean: `true` or `false`, in any case
- text: anything else, such as `02139`, `+49 30`, `2E10`, `1,5`, a date or a 22-digit identifier
"""

from __future__ import annotations

import math
import re
from typing import Literal

__all__ = ["ColumnTypes"]

_Kind = Literal["integer", "number", "boolean", "text"]
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,15}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-][0-9]+)?")
_MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", r"\N", "None"}
)
_MAX_INTEGER = 2**53
_MAX_DIGITS = 17
"""Significant digits that a float can hold."""


class ColumnTypes:
    """Infers the types of columns from all of their cells, and converts cells.

    >>> types = ColumnTypes()
    >>> for cell in ("10001", "02139"):
    ...     types.add("zip", cell)
    >>> types.convert("zip", "10001")
    '10001'
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, name: str, cell: str) -> None:
        """Take a cell of a column into account."""
        known = self._kinds.get(name)
        if known == "text" or cell in _MISSING:
            return
        kind = _kind(cell)
        if known is None or kind == known:
            self._kinds[name] = kind
        else:
            numeric = {known, kind} == {"integer", "number"}
            self._kinds[name] = "number" if numeric else "text"

    def convert(self, name: str, cell: str) -> str | int | float | bool | None:
        """Return the value of a cell in its column's type; None if it is missing and not text."""
        kind = self._kinds.get(name, "text")
        if kind == "text":
            return cell
        if cell in _MISSING:
            return None
        if kind == "integer":
            return int(cell)
        return float(cell) if kind == "number" else cell.lower() == "true"


def _kind(cell: str) -> _Kind:
    if _INTEGER.fullmatch(cell):
        return "integer" if abs(int(cell)) <= _MAX_INTEGER else "text"
    if _NUMBER.fullmatch(cell) and not cell.lstrip("-").isdecimal():
        digits = re.split("[eE]", cell)[0].replace(".", "").strip("-0")
        exact = len(digits) <= _MAX_DIGITS and math.isfinite(float(cell))
        return "number" if exact else "text"
    return "boolean" if cell.lower() in ("true", "false") else "text"
