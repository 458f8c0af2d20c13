"""A store whose graphs stay on disk: the same answers, in bounded memory, on a full disk too."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from idiolect.errors import InputError
from idiolect.search.diskann import DiskGraph, Graph
from idiolect.search.items import Item
from idiolect.search.store.graphs import memory_plan, merge_kernels
from idiolect.search.store.graphs.graph_segment import GraphSegment
from idiolect.search.store.graphs.memory_plan import LEDGER_CACHE, plan_memory
from idiolect.search.store.store import Store
from search.things import DIMENSIONS, nearest, thing, vector

MERGE_AFTER = 40


def _open(folder: Path, **options: Any) -> Store:
    return Store.open(folder, **{"merge_after": MERGE_AFTER, "background": False, **options})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a graph of 200 items on disk."""
    with _open(tmp_path / "index", dimensions=DIMENSIONS, memory="disk") as opened:
        opened.upsert([thing(n, number=n, even=n % 2 == 0) for n in range(200)])
        opened.merge()
        yield opened


def _assert_exact(store: Store, filter: dict[str, Any] | None = None) -> None:
    items = [
        item
        for item in store.items(vectors=True)
        if filter is None or item.metadata.get("even") == filter["even"]
    ]
    for seed in range(1000, 1010):
        found = [hit.id for hit in store.query(vector(seed), 5, filter=filter)]
        assert found == [id for id, _ in nearest(items, vector(seed), 5, store.metric)]


def _graph(store: Store) -> Graph | DiskGraph:
    (path,) = [path for path in (store.path / "graphs").iterdir() if path.is_dir()]
    return GraphSegment.open(path).graph


def test_writes_deletions_filters_and_merges(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(_graph(store), DiskGraph)
    _assert_exact(store, {"even": True})
    monkeypatch.setattr(  # the graph is updated, not built again
        "idiolect.search.diskann.disk.partitioned_build.build_partitioned", None
    )
    for first in range(200, 400, 50):
        store.upsert([thing(n, even=n % 2 == 0) for n in range(first, first + 50)])
        store.upsert(
            [Item(f"t{n}", "", {}, vector(n + 5000)) for n in range(first - 200, first)][:9]
        )
        store.delete([f"t{n}" for n in range(first - 100, first - 80)])
        _assert_exact(store)
        store.merge()
        assert store.describe().namespaces[""].unmerged == 0
        _assert_exact(store)
        _assert_exact(store, {"even": False})
    assert len(_graph(store)) == _graph(store).rows == len(store.list(limit=1000))
    assert list(store.verify()) == []
    with _open(store.path) as other:
        _assert_exact(other)


@pytest.mark.parametrize("metric", ["inner", "l2"])
def test_other_metrics(tmp_path: Path, metric: Any) -> None:
    with _open(tmp_path / "x", dimensions=DIMENSIONS, metric=metric, memory="disk") as store:
        for first in (0, 80):
            store.upsert([thing(n) for n in range(first, first + 80)])
            store.delete([f"t{first}"])
            store.merge()
            _assert_exact(store)


def test_the_choice_is_stored_and_can_be_changed(store: Store) -> None:
    with _open(store.path) as other:
        assert other.settings["memory"] == "disk"
        assert other._ledger.cache == LEDGER_CACHE
        with other._ledger.reading() as db:
            assert db.execute("PRAGMA cache_size").fetchone()[0] == -LEDGER_CACHE // 1024
    for memory, kind in (("ram", Graph), ("disk", DiskGraph)):
        with _open(store.path, memory=memory) as other:
            other.upsert([thing(900)])
            other.merge()
            assert isinstance(_graph(other), kind)
            _assert_exact(other)
    for wrong in ({"memory": "tape"}, {"memory_limit": 0}):
        with pytest.raises(InputError, match="memory"):
            _open(store.path, **wrong)


def test_users_of_a_graph_in_one_process_share_its_memory(store: Store) -> None:
    with _open(store.path) as other:
        assert store.query(vector(1), 3) == other.query(vector(1), 3)
        first, second = (s._views[""].segment for s in (store, other))
        assert first is second


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Let writes beyond a size fail, like those to a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [4096, 30_000])  # the copied vectors; the pages
@pytest.mark.parametrize("rebuild", [True, False])
def test_a_full_disk_during_a_merge_loses_nothing(store: Store, size: int, rebuild: bool) -> None:
    store.upsert([thing(n) for n in range(300, 350)])
    with store._ledger.connection() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = sorted(path.name for path in (store.path / "graphs").iterdir())
    with _largest_file(size), pytest.raises(InputError, match="cannot write") as raised:
        store.merge(rebuild=rebuild)
    assert raised.value.hint is not None
    assert "free disk space and merge again; nothing was lost" in raised.value.hint
    assert sorted(path.name for path in (store.path / "graphs").iterdir()) == before
    assert store.describe().namespaces[""].unmerged == 50
    _assert_exact(store)
    store.merge(rebuild=rebuild)
    assert store.describe().namespaces[""].unmerged == 0
    _assert_exact(store)


def test_a_memory_limit_that_is_too_small_names_the_least_that_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_plan, "resident_memory", lambda: 100 * 10**6)
    with pytest.raises(InputError, match="1,000,000 vectors of 384") as raised:
        plan_memory(110 * 10**6, 1_000_000, 384, 10_000)
    found = re.search(r"least that works is ([\d,]+) MB", str(raised.value.hint))
    assert found is not None
    least = int(found[1].replace(",", ""))
    with pytest.raises(InputError):
        plan_memory((least - 1) * 10**6, 1_000_000, 384, 10_000)
    tight = plan_memory(least * 10**6, 1_000_000, 384, 10_000)
    roomy = plan_memory(4 * least * 10**6, 1_000_000, 384, 10_000)
    assert (tight.code_width, roomy.code_width) == (16, 8)
    assert tight.shard_rows < roomy.shard_rows
    default = plan_memory(None, 1_000_000, 384, 10_000)
    assert default.code_width == 8
    assert default.available <= max(1_000_000 * 384 // 2, 256 << 20)


def test_a_memory_limit_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    options = {"dimensions": DIMENSIONS, "memory": "disk", "memory_limit": 10**6}
    with _open(tmp_path / "index", **options) as store:
        store.upsert([thing(n) for n in range(100)])
        with pytest.raises(InputError, match="the memory limit of 1 MB is too small"):
            store.merge()
        _assert_exact(store)
    with _open(tmp_path / "index", memory_limit=10**10) as store:
        store.merge()
        assert isinstance(_graph(store), DiskGraph)


def test_a_damaged_page_is_found(store: Store) -> None:
    (path,) = (store.path / "graphs").glob("*/disk_graph")
    place = DiskGraph.open(path)._file.place("pages")
    data = bytearray(path.read_bytes())
    data[place + 100] ^= 4
    path.write_bytes(data)
    (damage,) = store.verify()
    assert damage.derived
    assert "disk_graph is damaged" in damage.problem
    store.compact(rebuild=True)
    assert list(store.verify()) == []
    assert _graph(store).rows == 200


def test_kernels_of_merges_are_compiled_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each folder of compiled kernels; in this process where that does not work."""
    from idiolect.search.diskann import jit

    commands: list[list[str]] = []

    def count(command: list[str], **options: Any) -> Any:
        compile(command[-1], "command", "exec")
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    def refuse(command: list[str], **options: Any) -> Any:
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(merge_kernels.subprocess, "run", count)
    monkeypatch.setattr(jit, "kernel_folder", lambda: tmp_path)
    load = merge_kernels.load_kernels.__wrapped__
    load(on_disk=True)
    load(on_disk=True)
    assert len(commands) == 1
    assert (tmp_path / "merges-disk").exists()
    monkeypatch.setattr(merge_kernels.subprocess, "run", refuse)
    load(on_disk=False)
    assert not (tmp_path / "merges-ram").exists()
