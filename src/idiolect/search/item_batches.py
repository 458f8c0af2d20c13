"""Read items in batches, with progress."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from idiolect.search.items import Item

__all__ = ["read_batches"]

_BATCH_SIZE = 512
"""Items per batch."""


def read_batches(items: Iterable[Item], *, progress: bool) -> Iterator[list[Item]]:
    """Yield batches of items.

    Args:
        items: a stream of items.
        progress: report the number of items on standard error.
    """
    from idiolect.training.progress import show_progress  # imports rich, so only when needed

    stream = iter(items)
    with show_progress("indexing items", shown=progress) as activity:
        while batch := list(islice(stream, _BATCH_SIZE)):
            yield batch
            activity.advance(len(batch))
