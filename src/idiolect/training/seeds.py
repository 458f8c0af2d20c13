"""Seeds for every use of chance, derived from the run's seed and the number of what is drawn."""

from __future__ import annotations

import numpy as np

__all__ = ["derive_seed"]


def derive_seed(*numbers: int) -> int:
    """Mix numbers into a seed; different numbers, or another order, give unrelated streams.

    On a CPU torch's generator reads the low 32 bits of a seed and no more, so that of two numbers
    put side by side one would be left out; hashing spreads both over all bits.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
