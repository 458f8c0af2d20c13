"""Suggest the known name that was probably meant by an unknown one.

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
"""Maximum number of names to compare; a folder may have millions."""


def did_you_mean(name: str, known: Iterable[str], what: str = "known:") -> str:
    """Return a hint: the most similar known name, or a list of all if none is similar.

    Args:
        name: the unknown name.
        known: the known names.
        what: label of the list of names.
    """
    names = list(known)
    near = _nearest(name, names)
    return f"did you mean {near}?" if near else f"{what} {shown_names(names)}"


def similar_path(path: str | Path) -> str:
    """Return a hint with an existing path similar to a missing one; empty if there is none.

    A path of the wrong kind, such as a file in the place of a folder, is not its own hint.
    """
    path = Path(path)
    try:
        beside = islice(path.parent.iterdir(), _MAX_COMPARED)
        names = [one.name for one in beside if one.name != path.name]
    except OSError:
        return ""
    near = _nearest(path.name, names)
    return f"did you mean {path.with_name(near)}?" if near else ""


def _nearest(name: str, known: list[str]) -> str | None:
    """Return the known name most similar to another, ignoring case."""
    by_case = {one.casefold(): one for one in reversed(known)}
    near = difflib.get_close_matches(name.casefold(), by_case, 1, _LIKENESS)
    return by_case[near[0]] if near else None
