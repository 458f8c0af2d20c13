"""Suggestions for a name that does not exist: the known one that was probably meant.

>>> did_you_mean("hybird", ("hybrid", "dense", "lexical"))
'did you mean hybrid?'
>>> did_you_mean("both", ("hybrid", "dense"))
'known: hybrid, dense'
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from idiolect.text.fields import shown_names

__all__ = ["did_you_mean", "similar_path"]

_LIKENESS = 0.6
_MAX_COMPARED = 10_000
"""Names that are compared; a folder may have millions."""


def did_you_mean(name: str, known: Iterable[str], what: str = "known:") -> str:
    """Return a hint: the known name most like another, or a list of all.

    Args:
        name: the name that does not exist.
        known: the names that do.
        what: what the list of names is called.
    """
    names = list(known)
    near = _nearest(name, names)
    return f"did you mean {near}?" if near else f"{what} {shown_names(names)}"


def similar_path(path: str | Path) -> str:
    """Return a hint with an existing path that is like a missing one; empty if there is none."""
    path = Path(path)
    try:
        names = [one.name for one in islice(path.parent.iterdir(), _MAX_COMPARED)]
    except OSError:
        return ""
    near = _nearest(path.name, names)
    return f"did you mean {path.with_name(near)}?" if near else ""


def _nearest(name: str, known: list[str]) -> str | None:
    """Return the known name most like another, without regard to case."""
    by_case = {one.casefold(): one for one in reversed(known)}
    near = difflib.get_close_matches(name.casefold(), by_case, 1, _LIKENESS)
    return by_case[near[0]] if near else None
