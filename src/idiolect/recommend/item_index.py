"""An index of a recommender's items, which is searched by a user's vector, with filters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.recommend.scorer import ItemScorer, VectorScorer
from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.search.store.store import Store

__all__ = ["build_item_index", "indexed_top", "vectors_to_index"]


def vectors_to_index(scorer: ItemScorer) -> VectorScorer:
    """Return a recommender if its scores are inner products of vectors.

    Raises:
        InputError: It has no vectors.
    """
    if not isinstance(scorer, VectorScorer):
        raise InputError(
            f"{scorer.name} has no vectors of items, so an index cannot answer for it",
            hint="train als, sasrec, gru4rec, bert4rec, unisrec, two-tower or text-dense; "
            "filters work without an index",
        )
    return scorer


def build_item_index(
    folder: Path,
    scorer: VectorScorer,
    ids: Sequence[str],
    texts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
) -> Index:
    """Write an index of the items with the inner-product metric.

    Items with a zero vector, such as those without text, are skipped and counted.
    """
    vectors = scorer.item_vectors()

    def items() -> Iterator[Item]:
        for place, id in enumerate(ids):
            text = texts[place] if texts else ""
            values = metadata[place] if metadata else {}
            yield Item(id, text, values, np.ascontiguousarray(vectors[place], np.float32))

    store = Store.open(folder, dimensions=vectors.shape[1], metric="inner", background=False)
    index = Index(store, None)
    index.counts = index.add(items(), skip_invalid_metadata=True)
    store.merge()
    return index


def indexed_top(
    index: Index,
    vector: NDArray[np.float32],
    count: int,
    filter: Mapping[str, Any] | str | None = None,
) -> list[tuple[str, float]]:
    """Return the ids and scores of the items with the largest inner products, best first."""
    hits = index.search_vectors(vector[None], count, filter=filter)[0]
    return [(hit.id, hit.score) for hit in hits]
