"""A store whose graph has edges by a metadata field: the same answers as an exhaustive search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from idiolect.errors import InputError
from idiolect.search.diskann import DiskGraph
from idiolect.search.items import Item
from idiolect.search.store.graphs.graph_segment import GraphSegment
from idiolect.search.store.store import Store
from search.things import DIMENSIONS, matches, nearest, thing, vector

KINDS = ["shirt", "shoe", 3, 3.5, True, None]
FILTERS: list[dict[str, Any]] = [
    *({"kind": kind} for kind in KINDS[:-1]),
    {"kind": "shirt", "number": {"$lt": 300}},
    {"kind": {"$in": ["shirt", "shoe"]}},
    {"number": {"$gte": 100}},
    {"kind": {"$ne": "shoe"}},
]


def _open(folder: Path, **options: Any) -> Store:
    return Store.open(folder, **{"merge_after": 40, "background": False, **options})


def _thing(number: int) -> Item:
    return thing(number, number=number, kind=KINDS[number % 7 % 6])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    options = {"dimensions": DIMENSIONS, "memory": "disk", "label_field": "kind"}
    with _open(tmp_path / "index", **options) as opened:
        opened.upsert([_thing(n) for n in range(400)])
        opened.merge()
        yield opened


def _graph(store: Store) -> DiskGraph:
    (path,) = [path for path in (store.path / "graphs").iterdir() if path.is_dir()]
    graph = GraphSegment.open(path).graph
    assert isinstance(graph, DiskGraph)
    return graph


def _assert_exact(store: Store) -> None:
    items = list(store.items(vectors=True))
    for filter in FILTERS:
        matching = [item for item in items if matches(filter, item.metadata)]
        for seed in range(1000, 1005):
            found = [hit.id for hit in store.query(vector(seed), 5, filter=filter)]
            assert found == [id for id, _ in nearest(matching, vector(seed), 5)], filter


def test_filters_after_writes_deletions_and_merges(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = _graph(store).labels
    assert labels is not None
    assert len(labels.entries) == 5
    _assert_exact(store)
    monkeypatch.setattr(  # the graph is updated, not built again
        "idiolect.search.diskann.disk.partitioned_build.build_partitioned", None
    )
    for first in range(400, 700, 100):
        store.upsert([_thing(n) for n in range(first, first + 60)])
        store.delete([f"t{n}" for n in range(first - 380, first - 340)])
        _assert_exact(store)
        store.merge()
        _assert_exact(store)
    assert list(store.verify()) == []


def test_an_item_that_changes_its_label_moves(store: Store) -> None:
    """Its vector is the same; another field changes in place."""
    store.upsert([Item(f"t{n}", "", {"kind": "shoe", "number": n}, vector(n)) for n in range(40)])
    store.update("t50", metadata={"kind": "hat"})
    store.update("t51", metadata={"kind": None})
    _assert_exact(store)
    before = _graph(store)
    store.update("t60", metadata={"number": -60})
    store.merge()
    after = _graph(store)
    assert after is not before
    assert after.labels is not None
    assert len(after.labels.entries) == 6
    _assert_exact(store)
    found = store.query(vector(50), 5, filter={"kind": "hat"})
    assert [hit.id for hit in found] == ["t50"]


def test_a_rebuild_and_a_restore(store: Store) -> None:
    store.snapshot("before")
    store.upsert([Item(f"t{n}", "", {"kind": "shoe"}, vector(n + 1)) for n in range(300)])
    store.compact(rebuild=True)
    _assert_exact(store)
    store.restore("before")
    _assert_exact(store)


def test_a_list_is_no_label(store: Store) -> None:
    for write in (
        lambda: store.upsert([thing(900), thing(901, kind=["a", "b"])]),
        lambda: store.update("t1", metadata={"kind": ["a"]}),
    ):
        with pytest.raises(InputError, match="has a list of kind"):
            write()
    assert not store.fetch(["t900"])
    assert store.fetch(["t1"])["t1"].metadata["kind"] == "shoe"


def test_the_field_is_chosen_once_and_on_disk(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label field kind, not size"):
        _open(store.path, label_field="size")
    with _open(store.path, label_field="kind") as again:
        assert again.settings["label_field"] == "kind"
    with pytest.raises(InputError, match="on disk"):
        _open(tmp_path / "x", dimensions=DIMENSIONS, label_field="kind")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("metric", ["inner", "l2"])
def test_other_metrics(tmp_path: Path, metric: Any) -> None:
    options = {"dimensions": DIMENSIONS, "metric": metric, "memory": "disk", "label_field": "kind"}
    with _open(tmp_path / "x", **options) as store:
        for first in (0, 200):
            store.upsert([_thing(n) for n in range(first, first + 200)])
            store.merge()
            items = [item for item in store.items(vectors=True) if item.metadata["kind"] == "shoe"]
            for seed in range(5):
                found = store.query(vector(seed + 5000), 5, filter={"kind": "shoe"})
                expected = nearest(items, vector(seed + 5000), 5, metric)
                assert [hit.id for hit in found] == [id for id, _ in expected]


def test_items_without_the_field_and_labels_of_one_item_each(tmp_path: Path) -> None:
    options = {"dimensions": DIMENSIONS, "memory": "disk", "label_field": "kind"}
    with _open(tmp_path / "x", **options) as store:
        store.upsert([thing(n, number=n) for n in range(100)])
        store.merge()
        labels = _graph(store).labels
        assert labels is not None
        assert len(labels.entries) == 0
        store.upsert([thing(n, number=n, kind=f"only {n}") for n in range(60, 140)])
        store.merge()
        assert [hit.id for hit in store.query(vector(1), 5, filter={"kind": "only 70"})] == ["t70"]
        items = list(store.items(vectors=True))
        found = store.query(vector(5), 5, filter={"number": {"$lt": 60}})
        expected = nearest([item for item in items if item.metadata["number"] < 60], vector(5), 5)
        assert [hit.id for hit in found] == [id for id, _ in expected]
