"""Project items and new terms onto a plane.

The plane is spanned by the first two principal components of the vectors. A term is placed at the
mean of the items that use it most. Terms of a few similar items come first, because the mean of
unrelated items is uninformative.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plane", "place"]

_MINIMUM_USERS = 3  # items that a term must occur in
_COMMON = 0.1  # terms in a larger share of the items are left out
_USERS = 8  # items to take the mean of


@dataclass(frozen=True)
class Plane:
    """Positions of items and terms."""

    points: NDArray[np.float64]
    """Items. Shape: (n, 2)."""
    terms: dict[str, tuple[float, float]]
    """Terms, the most informative first."""
    spread: float
    """Share of the vectors' variance that the plane shows, 0 to 1."""


def place(vectors: NDArray[np.float32], texts: Sequence[str], terms: Sequence[str]) -> Plane:
    """Place items and terms on a plane.

    Args:
        vectors: One row per item, of length 1; at least three. Shape: (n, dim).
        texts: The texts of the items.
        terms: The terms, spelled as in the texts.
    """
    rows = vectors.astype(np.float64)
    centered = rows - rows.mean(0)
    values, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, :-3:-1]
    axes *= np.sign(
        axes[np.abs(axes).argmax(0), range(2)]
    )  # otherwise the sign depends on the machine
    points = centered @ axes
    found: list[tuple[float, str, tuple[float, float]]] = []
    for term, users in _users(texts, terms).items():
        mean = rows[users].mean(0)
        x, y = (mean - rows.mean(0)) @ axes
        found.append((-float(np.linalg.norm(mean)), term, (float(x), float(y))))
    total = float(values.sum())
    return Plane(
        points,
        {term: where for _, term, where in sorted(found)},
        float(values[-2:].sum()) / total if total else 1.0,
    )


def _users(texts: Sequence[str], terms: Sequence[str]) -> dict[str, list[int]]:
    """Return for each term the items that use it most, without rare and common terms."""
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
    maximum = max(_USERS, int(_COMMON * len(texts)))
    return {
        term: sorted(users, key=lambda number: (-users[number], number))[:_USERS]
        for term, users in counts.items()
        if _MINIMUM_USERS <= len(users) <= maximum
    }
