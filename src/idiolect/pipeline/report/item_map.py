"""Items on a plane, and where the new terms are among them.

The plane is the two directions in which the vectors vary most (principal components). A term stands
in the middle of the items that use it most. Terms that only a few like items use come first, since
where a term stands that is used everywhere says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plane", "place"]

_FEWEST = 3  # items that a term is in, to have a middle
_COMMON = 0.1  # share of items from which on a term is everywhere
_USERS = 8  # items that the middle is taken of


@dataclass(frozen=True)
class Plane:
    """Where items and terms are."""

    points: NDArray[np.float64]
    """Items, of shape (n, 2)."""
    terms: dict[str, tuple[float, float]]
    """Terms, the most telling first."""
    spread: float
    """Share of the vectors' variance that the plane shows, 0 to 1."""


def place(vectors: NDArray[np.float32], texts: Sequence[str], terms: Sequence[str]) -> Plane:
    """Lay items and terms out on a plane.

    Args:
        vectors: of shape (n, dim), a row an item, of length 1; at least three.
        texts: the items' texts.
        terms: the terms, each in the spelling to look for.
    """
    rows = vectors.astype(np.float64)
    centred = rows - rows.mean(0)
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]
    axes *= np.sign(axes[np.abs(axes).argmax(0), range(2)])  # else the sign is the machine's choice
    points = centred @ axes
    found: list[tuple[float, str, tuple[float, float]]] = []
    for term, users in _users(texts, terms).items():
        middle = rows[users].mean(0)
        x, y = (middle - rows.mean(0)) @ axes
        found.append((-float(np.linalg.norm(middle)), term, (float(x), float(y))))
    total = float(values.sum())
    return Plane(
        points,
        {term: where for _, term, where in sorted(found)},
        float(values[-2:].sum()) / total if total else 1.0,
    )


def _users(texts: Sequence[str], terms: Sequence[str]) -> dict[str, list[int]]:
    """Find for each term that is in some texts and not in all those that use it most."""
    wanted = {term.strip(): None for term in terms if term.strip()}
    counts: dict[str, dict[int, int]] = {term: {} for term in wanted}
    longest_first = sorted(wanted, key=len, reverse=True)
    if not longest_first:
        return {}
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    for number, text in enumerate(texts):
        for match in pattern.finditer(text):
            users = counts[match[0]]
            users[number] = users.get(number, 0) + 1
    most = max(_USERS, int(_COMMON * len(texts)))
    return {
        term: sorted(users, key=lambda number: (-users[number], number))[:_USERS]
        for term, users in counts.items()
        if _FEWEST <= len(users) <= most
    }
