"""Independent random seeds, derived from a run's seed and the numbers of step, process or row."""

from __future__ import annotations

import numpy as np

__all__ = ["derive_seed"]


def derive_seed(*numbers: int) -> int:
    """Hash numbers into a seed; other numbers, or another order, seed an unrelated stream.

    On a CPU, torch's generator reads only the low 32 bits of a seed. Two numbers packed into 64
    bits would lose one of them, so the numbers are hashed.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
