"""The embedded store: its folder, merging, snapshots, damage and compaction."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idiolect.errors import CheckpointError, InputError
from idiolect.search.items import Item
from idiolect.search.store import ledger, store_reader
from idiolect.search.store.graphs import merger
from idiolect.search.store.graphs.merger import Merger
from idiolect.search.store.store import Store
from search.things import DIMENSIONS, nearest, thing, vector

MERGE_AFTER = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    """A store with a graph of 100 items, and 10 unmerged items."""
    with Store.open(
        folder, dimensions=DIMENSIONS, merge_after=MERGE_AFTER, background=False
    ) as opened:
        opened.upsert([thing(n, number=n) for n in range(100)])
        opened.merge()
        opened.upsert([thing(n, number=n) for n in range(100, 110)])
        yield opened


def _reopen(folder: Path) -> Store:
    return Store.open(folder, merge_after=MERGE_AFTER, background=False)


def _answers(store: Store) -> list[list[str]]:
    return [[hit.id for hit in store.query(vector(seed), 5)] for seed in range(1000, 1020)]


def _expected(store: Store) -> list[list[str]]:
    items = list(store.items(vectors=True))
    return [[id for id, _ in nearest(items, vector(seed), 5)] for seed in range(1000, 1020)]


def _flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x10
    path.write_bytes(data)


# The folder of a store


def test_ended_threads_leave_no_files_open(folder: Path) -> None:
    """Each background merge has a thread of its own, and each thread a connection."""
    with Store.open(folder, dimensions=DIMENSIONS, merge_after=MERGE_AFTER) as opened:
        counts = []
        for turn in range(12):
            opened.upsert([thing(n, number=turn) for n in range(20)])
            other = threading.Thread(target=lambda: opened.query(vector(1), 5))
            other.start()
            other.join()
            counts.append(len(opened._ledger._connections))
        assert counts[-1] <= 3, counts
        assert len(opened.query(vector(1), 5)) == 5


def test_paths_of_others_are_not_changed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Store.open(tmp_path / "nowhere")
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for dimensions in (None, 8):
        with pytest.raises(InputError, match="is a file"):
            Store.open(file, dimensions=dimensions)
    with pytest.raises(InputError, match="is not empty and is not an index"):
        Store.open(tmp_path, dimensions=8)
    with pytest.raises(InputError, match="no index at"):
        Store.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert file.read_text() == "mine"


def test_a_database_of_another_program_is_rejected_and_unchanged(folder: Path) -> None:
    folder.mkdir()
    with sqlite3.connect(folder / "ledger.db") as theirs:
        theirs.execute("CREATE TABLE accounts (name)")
    theirs.close()
    before = (folder / "ledger.db").read_bytes()
    for dimensions in (None, 8):
        with pytest.raises(InputError, match="a database of another program; nothing was changed"):
            Store.open(folder, dimensions=dimensions)
    assert (folder / "ledger.db").read_bytes() == before
    (folder / "ledger.db").write_text("not a database at all, but long enough to be read as one")
    with pytest.raises(CheckpointError, match=r"ledger\.db is damaged, or is not an index"):
        Store.open(folder)


def test_the_arguments_of_open_are_checked(folder: Path) -> None:
    for dimensions in (0, 1, 4097):
        with pytest.raises(InputError, match=f"{dimensions} dimensions"):
            Store.open(folder, dimensions=dimensions)
    with pytest.raises(InputError, match=r"unknown metric 'hamming' .*cosine, inner, l2"):
        Store.open(folder, dimensions=8, metric="hamming")  # type: ignore[arg-type]
    assert not folder.exists()
    Store.open(folder, dimensions=8, metric="l2").close()
    with pytest.raises(InputError, match="8 dimensions with metric l2, not 8 with metric cosine"):
        Store.open(folder, dimensions=8)
    with sqlite3.connect(folder / "ledger.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CheckpointError, match="is of version 99"):
        Store.open(folder)


def test_a_store_whose_creation_was_killed_is_completed(folder: Path) -> None:
    folder.mkdir()
    (folder / "ledger.db").touch()
    with Store.open(folder, dimensions=DIMENSIONS) as store:
        store.upsert([thing(1)])
        assert list(store.list()) == ["t1"]


# Merging


def test_searches_are_the_same_merged_and_unmerged(store: Store, folder: Path) -> None:
    def check(unmerged: int) -> None:
        assert store.describe().namespaces[""].unmerged == unmerged
        assert _answers(store) == _expected(store)
        with _reopen(folder) as other:
            assert _answers(other) == _expected(store)

    check(10)
    store.merge()
    check(0)
    store.upsert([Item(f"t{n}", "", {}, vector(n + 500)) for n in range(20)])
    store.delete([f"t{n}" for n in range(15, 30)])
    check(15)
    store.merge()
    check(0)
    store.delete([f"t{n}" for n in range(30, 90)])
    check(0)
    store.merge()  # too few items remain for a graph
    check(35)
    assert list(store.verify()) == []


def test_changes_of_text_and_metadata_keep_the_graph(store: Store) -> None:
    before = store.describe().namespaces[""].unmerged
    store.update("t5", text="a lamp", metadata={"number": 5000})
    store.upsert([Item("t6", "another lamp", {"number": 6000}, vector(6))])
    assert store.describe().namespaces[""].unmerged == before
    assert {hit.id for hit in store.match("lamp")} == {"t5", "t6"}
    assert [hit.id for hit in store.query(vector(6), 1, filter={"number": 6000})] == ["t6"]
    assert list(store.verify()) == []


def test_unchanged_items_are_not_written_reopen(store: Store) -> None:
    store.merge()
    store.upsert([thing(n, number=n) for n in range(110)])
    assert store.describe().namespaces[""].unmerged == 0


def test_merging_in_the_background(folder: Path) -> None:
    with Store.open(folder, dimensions=DIMENSIONS, merge_after=MERGE_AFTER) as store:
        for n in range(0, 200, 10):
            store.upsert([thing(m) for m in range(n, n + 10)])
            assert [hit.id for hit in store.query(vector(n), 1)] == [f"t{n}"]
    with _reopen(folder) as store:
        assert store.describe().namespaces[""].unmerged < 200
        assert _answers(store) == _expected(store)


def test_a_description_while_a_merge_renames_its_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_folder = os.scandir

    def scandir(path: Any) -> Any:
        if not isinstance(path, int) and Path(path).name == ".new":
            shutil.rmtree(path)  # after its name was listed
        return list_folder(path)

    with Store.open(folder, dimensions=DIMENSIONS) as store:
        store.upsert([thing(n) for n in range(5)])
        (folder / "graphs" / ".new").mkdir(parents=True)
        (folder / "graphs" / ".new" / "file").write_text("x")
        monkeypatch.setattr(os, "scandir", scandir)
        assert (store.describe().bytes or 0) > 0


def test_writes_during_a_background_merge_are_merged_after_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No later write might come that would start another merge."""
    merge, merged, written = Merger.merge, threading.Event(), threading.Event()

    def slow_merge(self: Merger, number: int) -> str | None:
        graph = merge(self, number)
        merged.set()
        assert written.wait(60)
        return graph

    monkeypatch.setattr(Merger, "merge", slow_merge)
    monkeypatch.setattr(merger, "load_kernels", lambda on_disk: None)
    with Store.open(folder, dimensions=DIMENSIONS, merge_after=MERGE_AFTER) as store:
        store.upsert([thing(n) for n in range(50)])
        assert merged.wait(60)
        store.upsert([thing(n) for n in range(50, 150)])
        store.upsert([thing(n) for n in range(50)], namespace="other")
        written.set()
        limit = time.monotonic() + 60
        while any(one.unmerged for one in store.describe().namespaces.values()):
            assert time.monotonic() < limit, store.describe()
            time.sleep(0.01)


def test_writes_of_other_processes_are_merged_in_the_background(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merger, "load_kernels", lambda on_disk: None)
    with (
        Store.open(folder, dimensions=DIMENSIONS, merge_after=MERGE_AFTER) as store,
        _reopen(folder) as other,
    ):
        other.upsert([thing(n) for n in range(100)])
        other.merge_due()
        assert store.describe().namespaces[""].unmerged == 100
        store.merge_due()
        limit = time.monotonic() + 60
        while store.describe().namespaces[""].unmerged:
            assert time.monotonic() < limit
            time.sleep(0.01)


def test_old_graphs_are_removed(store: Store, folder: Path) -> None:
    for n in range(5):
        store.upsert([thing(1000 + n)])
        store.merge()
    (folder / "graphs" / ".left-behind").mkdir()
    (folder / "graphs" / ".vectors-0123").write_bytes(b"of a merge that was killed")
    store.upsert([thing(2000)])
    store.merge()
    assert len([path for path in (folder / "graphs").iterdir() if path.name != ".lock"]) == 1


def test_a_dropped_namespace_leaves_nothing_behind(store: Store, folder: Path) -> None:
    """Not on disk, and not in the memory of any process that has searched it."""
    with _reopen(folder) as reader:
        for turn in range(3):
            name = f"turn {turn}"
            store.upsert([thing(n) for n in range(50)], namespace=name)
            store.merge()
            for one in (store, reader):
                assert len(one.query(vector(1), 5, namespace=name)) == 5
                one.query(vector(1), 5)
            assert store.drop(name) == 50
            assert len([path for path in (folder / "graphs").iterdir() if path.is_dir()]) == 1
            assert store._views.keys() == {""}
        assert reader._views.keys() == {"", name}
        assert reader.query(vector(1), 5, namespace=name) == []
        assert reader._views.keys() == {""}


def test_a_reader_follows_new_graphs_and_dropped_namespaces(store: Store, folder: Path) -> None:
    with _reopen(folder) as reader:
        assert _answers(reader) == _expected(store)
        store.upsert([thing(n) for n in range(200, 300)])
        store.merge()
        assert _answers(reader) == _expected(store)
        store.drop()
        assert reader.query(vector(0), 5) == []
        store.upsert([thing(3)])
        assert [hit.id for hit in reader.query(vector(0), 5)] == ["t3"]


def test_threads_share_a_store(store: Store) -> None:
    wrong: list[object] = []

    def work(first: int) -> None:
        for n in range(first, first + 20):
            store.upsert([thing(n)])
            if [hit.id for hit in store.query(vector(n), 1)] != [f"t{n}"]:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(1000 * t,)) for t in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.namespaces() == {"": 190}
    assert list(store.verify()) == []


# Snapshots


def test_readers_that_overlap_do_not_let_the_log_grow_forever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite starts its log anew only when nobody reads."""
    monkeypatch.setattr(ledger, "_LOG_PAGES", 10)
    monkeypatch.setattr(ledger, "_MOST_LOG", 100 << 13)
    stopped = threading.Event()

    def read(store: Store) -> None:
        while not stopped.is_set():
            with store._ledger.reading() as db:
                db.execute("SELECT count(*) FROM items").fetchone()
                stopped.wait(0.02)

    with Store.open(folder, dimensions=DIMENSIONS, background=False) as store:
        readers = [threading.Thread(target=read, args=(store,)) for _ in range(3)]
        try:
            for one in readers:
                one.start()
            sizes = []
            for turn in range(30):
                store.upsert([thing(n, turn=turn, note="w" * 500) for n in range(100)])
                sizes.append((folder / "ledger.db-wal").stat().st_size >> 13)
        finally:
            stopped.set()
            for one in readers:
                one.join()
        assert len(store.match("thing", 1000)) == 100
    assert max(sizes) < 300, sizes


def test_a_snapshot_is_restored(store: Store, folder: Path) -> None:
    before, answers = list(store.items()), _answers(store)
    path = store.snapshot("monday")
    assert path.is_file()
    assert store.describe().snapshots == ("monday",)
    with _reopen(folder) as reader:
        store.delete([f"t{n}" for n in range(50)])
        store.upsert([thing(n) for n in range(300, 330)], namespace="more")
        store.merge()
        assert _answers(reader) != answers
        store.restore("monday")
        assert list(store.items()) == before
        assert _answers(store) == _answers(reader) == answers
        assert store.namespaces() == {"": 110}
        # Later writes do not mix with writes that the restore discarded.
        store.upsert([thing(n, number=n) for n in range(400, 420)])
        store.delete(["t0"])
        assert _answers(store) == _answers(reader) == _expected(store)
    assert list(store.verify()) == []
    with pytest.raises(InputError, match="snapshot 'monday' already exists"):
        store.snapshot("monday")


def test_invalid_and_damaged_snapshots(store: Store, folder: Path) -> None:
    for name in ("../x", "", "a/b", ".hidden", "x" * 200):
        with pytest.raises(InputError, match="is not a valid snapshot name"):
            store.snapshot(name)
    with pytest.raises(InputError, match=r"no snapshot 'tuesday' .*available: none"):
        store.restore("tuesday")
    path = store.snapshot("monday")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = list(store.items())
    with pytest.raises(CheckpointError, match=r"monday\.db is damaged"):
        store.restore("monday")
    assert list(store.items()) == before
    assert not [p for p in (folder / "snapshots").iterdir() if p.name.startswith(".")]


# Damage


@pytest.mark.parametrize("part", ["graph", "rows"])
@pytest.mark.parametrize("fault", ["first", "middle", "late", "cut", "gone"])
def test_a_damaged_graph_is_reported_and_rebuilt(
    store: Store, folder: Path, part: str, fault: str
) -> None:
    (path,) = (folder / "graphs").glob(f"[!.]*/{part}")
    store.close()
    if fault == "gone":
        path.unlink()
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        _flip(path, {"first": 0.0, "middle": 0.5, "late": 0.99}[fault])
    with _reopen(folder) as store:
        damages = list(store.verify())
        assert [damage.derived for damage in damages] == [True]
        assert path.parent.name in damages[0].place
        assert part in damages[0].problem
        with pytest.raises(CheckpointError, match=f"{path}.*index compact"):
            store.query(vector(0), 5)
        assert (
            store.match("thing number 5", 1)[0].id == "t5"
        )  # the full-text index is in the ledger
        store.compact()
        assert list(store.verify()) == []
        assert _answers(store) == _expected(store)


def test_a_damaged_item_is_reported(store: Store, folder: Path) -> None:
    store.upsert([Item("lamp", "a very particular lamp", {"shade": "green"}, vector(7))])
    store.snapshot("good")
    store.close()
    with sqlite3.connect(folder / "ledger.db") as db:
        blob = bytearray(vector(7).tobytes())
        blob[5] ^= 1
        query = (
            "UPDATE vectors SET vector = ? WHERE row = (SELECT row FROM items WHERE id = 'lamp')"
        )
        db.execute(query, (bytes(blob),))
    db.close()
    with _reopen(folder) as store:
        (damage,) = store.verify()
        assert "ledger.db, item 'lamp'" in damage.place
        assert not damage.derived
        store.restore("good")
        assert list(store.verify()) == []
        assert np.array_equal(store.fetch(["lamp"], vectors=True)["lamp"].vector, vector(7))


def test_damaged_indexes_are_reported_and_rebuilt(store: Store, folder: Path) -> None:
    store.close()
    with sqlite3.connect(folder / "ledger.db") as db:
        db.execute("DELETE FROM facts WHERE value = 7")
        db.execute("UPDATE items SET text = 'other words' WHERE id = 't8'")
    db.close()
    with _reopen(folder) as store:
        places = " ".join(f"{damage.place} {damage.problem}" for damage in store.verify())
        assert "item 't7' its number is missing from the filters" in places
        assert "item 't8' its checksum is wrong" in places
        assert "full-text index" in places
        store.upsert([thing(8, number=8)])
        store.compact(rebuild=True)
        assert list(store.verify()) == []
        assert [hit.id for hit in store.query(vector(0), 5, filter={"number": 7})] == ["t7"]


def test_a_damaged_ledger_is_reported(store: Store, folder: Path) -> None:
    store.compact()
    store.close()
    path = folder / "ledger.db"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"ledger\.db"):
        _reopen(folder)
    path.write_bytes(data[:4000] + bytes(60000) + data[64000:])
    try:
        damaged = _reopen(folder)
    except CheckpointError as error:
        assert "ledger.db" in str(error)  # noqa: PT017
    else:
        with damaged:
            damages = list(damaged.verify())
            assert damages
            assert all("ledger.db" in damage.place for damage in damages)


def test_compact_frees_disk_space(store: Store) -> None:
    store.upsert([Item(f"big{n}", "word " * 5000, {}, vector(n)) for n in range(50)])
    store.delete([f"big{n}" for n in range(50)])
    before = store.describe().bytes
    store.compact()
    after = store.describe().bytes
    assert after < before / 2
    assert _answers(store) == _expected(store)


def test_vectors_of_many_namespaces_are_not_all_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_reader, "_HELD", 3 * 10 * DIMENSIONS * 4)
    things = [thing(n) for n in range(10)]
    with Store.open(tmp_path / "index", dimensions=DIMENSIONS) as store:
        for n in range(8):
            store.upsert(things, namespace=f"user {n}")
        for n in (0, 1, 2, 0, 3, 4, 0, 5):
            (hit,) = store.query(vector(n), 1, namespace=f"user {n}")
            assert hit.id == f"t{n}"
        assert list(store._views) == ["user 4", "user 0", "user 5"]
        store.upsert([thing(1, new=True)], namespace="user 1")
        store.delete(["t3"], namespace="user 1")
        found = store.query(vector(1), 10, namespace="user 1")
        assert len(found) == 9
        assert found[0].metadata == {"new": True}
        store.drop("user 5")
        assert store._used == sum(view.size for view in store._views.values()) > 0
