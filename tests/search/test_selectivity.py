"""Recall of filters that keep from 50% down to 0.1% of the items."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from idiolect.search.diskann import Graph
from idiolect.search.items import Item
from idiolect.search.store.store import Store
from search.diskann.truth import clusters, recall

ROWS = 20_000
KEPT = {"0.1%": 20, "1%": 200, "10%": 2000, "50%": 10_000}
POINTS, QUERIES = clusters(ROWS, 32), clusters(50, 32, seed=1)
SHARES = [*KEPT, "the rest"]
GROUPS = np.random.default_rng(7).permutation(
    np.repeat(range(len(SHARES)), [*KEPT.values(), ROWS - sum(KEPT.values())])
)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph.build(POINTS, degree=32, list_size=64)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with all but the last 1,000 items in its graph."""
    items = [
        Item(str(row), "", {"share": SHARES[GROUPS[row]], "row": row}, POINTS[row])
        for row in range(ROWS)
    ]
    folder = tmp_path_factory.mktemp("selectivity") / "index"
    with Store.open(folder, dimensions=32, background=False) as opened:
        opened.upsert(items[:-1000])
        opened.merge()
        opened.upsert(items[-1000:])
        yield opened


@pytest.mark.parametrize("share", KEPT)
@pytest.mark.parametrize("where", ["scattered", "clustered"])
def test_recall_by_mask(graph: Graph, share: str, where: str) -> None:
    """The kept rows are random, or the nearest to one point."""
    keep = SHARES.index(share) == GROUPS
    if where == "clustered":
        keep = np.zeros(ROWS, bool)
        keep[np.argsort(-(POINTS @ POINTS[0]))[: KEPT[share]]] = True
    ids, _ = graph.search(QUERIES, 10, mask=keep)
    assert recall(ids, POINTS, QUERIES, "cosine", keep) >= 0.95


@pytest.mark.parametrize("share", KEPT)
def test_recall_by_metadata(store: Store, share: str) -> None:
    assert store.describe().namespaces[""].unmerged == 1000
    keep = SHARES.index(share) == GROUPS
    some = {"share": share, "row": {"$gte": ROWS // 4}}
    for filter, kept in (({"share": share}, keep), (some, keep & (np.arange(ROWS) >= ROWS // 4))):
        hits = [store.query(query, 10, filter=filter) for query in QUERIES]
        ids = np.array([[int(hit.id) for hit in one] for one in hits])
        assert recall(ids, POINTS, QUERIES, "cosine", kept) >= 0.95
