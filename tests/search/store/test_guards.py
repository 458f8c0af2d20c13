"""The guards of a store against concurrent merges, restores and writers, forks and power failures.

Each test injects an event at the point that a guard protects, so it does not depend on timing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from idiolect.errors import CheckpointError, InputError
from idiolect.search.store import ledger as ledger_module
from idiolect.search.store.export import write_jsonl
from idiolect.search.store.graphs.graph_segment import GraphSegment
from idiolect.search.store.ledger import Ledger
from idiolect.search.store.snapshots import restore_snapshot
from idiolect.search.store.store import Store
from search.things import DIMENSIONS, nearest, thing, vector

MERGE_AFTER = 40


def _open(folder: Path, **options: Any) -> Store:
    return Store.open(
        folder, **{"merge_after": MERGE_AFTER, "background": False, "wait": 0.2, **options}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    """A store with a graph of 50 items."""
    with _open(folder, dimensions=DIMENSIONS) as opened:
        opened.upsert([thing(n, number=n) for n in range(50)])
        opened.merge()
        yield opened


@pytest.fixture
def during_merge(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Return a function that runs an event between the writing and publishing of a graph."""

    def arrange(event: Callable[[], object]) -> None:
        write = GraphSegment.write

        def write_then_event(*args: Any) -> GraphSegment:
            monkeypatch.setattr(GraphSegment, "write", write)
            segment = write(*args)
            event()
            return segment

        monkeypatch.setattr(GraphSegment, "write", write_then_event)

    return arrange


def _ids(store: Store, seed: int, count: int = 100) -> list[str]:
    return [hit.id for hit in store.query(vector(seed), count)]


def _assert_exact(store: Store) -> None:
    items = list(store.items(vectors=True))
    for seed in range(1000, 1005):
        assert _ids(store, seed, 5) == [id for id, _ in nearest(items, vector(seed), 5)]
    assert len(_ids(store, 0)) == min(100, len(items))


def _graph_columns(folder: Path) -> tuple[Any, ...]:
    with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as db:
        query = "SELECT graph, last_row, last_tombstone FROM namespaces"
        columns: tuple[Any, ...] = db.execute(query).fetchone()
        return columns


# Readers and concurrent merges


def test_a_reader_that_missed_purged_tombstones_reads_again(folder: Path) -> None:
    """A merge may purge tombstones before a second reader has seen them."""
    with _open(folder, dimensions=DIMENSIONS) as store, _open(folder) as reader:
        store.upsert([thing(n) for n in range(10)])
        assert len(_ids(reader, 0)) == 10
        store.delete(["t3", "t7"])
        store.merge()  # too few items for a graph: only the tombstones change
        assert sorted(_ids(reader, 3)) == sorted(store.list())


def test_a_reader_retries_when_a_merge_removes_the_graph_it_opens(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_segment = GraphSegment.open

    def merge_then_open(path: Path) -> GraphSegment:
        monkeypatch.setattr(GraphSegment, "open", open_segment)
        store.upsert([thing(n) for n in range(50, 60)])
        store.merge()
        assert not path.exists(), "the merge removed the old graph"
        return open_segment(path)

    with _open(folder) as reader:
        monkeypatch.setattr(GraphSegment, "open", merge_then_open)
        assert sorted(_ids(reader, 0)) == sorted(store.list())


def test_a_reader_adopts_a_newer_graph(store: Store, folder: Path) -> None:
    with _open(folder) as reader:
        store.upsert([thing(n) for n in range(50, 60)])
        _ids(reader, 0)
        assert reader._views[""].unmerged == 10
        store.merge()
        _ids(reader, 0)
        reader._opener.wait()
        _ids(reader, 0)
        assert reader._views[""].unmerged == 0


def test_readers_answer_while_a_newer_graph_is_opened(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two merges, with deletions between them, while a slow disk opens the first new graph."""
    open_segment, opening, may_open = GraphSegment.open, threading.Event(), threading.Event()

    def open_slowly(path: Path) -> GraphSegment:
        opening.set()
        assert may_open.wait(20)
        return open_segment(path)

    with _open(folder) as reader:
        _ids(reader, 0)
        store.upsert([thing(n) for n in range(50, 60)])
        store.delete(["t1"])
        store.merge()
        monkeypatch.setattr(GraphSegment, "open", open_slowly)
        assert sorted(_ids(reader, 0)) == sorted(store.list())
        assert opening.wait(20), "the reader opens the new graph in the background"
        monkeypatch.setattr(GraphSegment, "open", open_segment)
        store.delete(["t2", "t55"])
        store.upsert([thing(n) for n in range(60, 65)])
        for _ in range(2):
            assert sorted(_ids(reader, 0)) == sorted(store.list())
            store.merge()  # its graph replaces the one that is being opened
        may_open.set()
        for _ in range(3):
            assert sorted(_ids(reader, 0)) == sorted(store.list())
            reader._opener.wait()
        assert reader._views[""].unmerged == 0
        _assert_exact(reader)


def test_a_merge_holds_no_read_transaction_while_it_builds(
    store: Store, folder: Path, during_merge: Callable[[Callable[[], object]], None]
) -> None:
    """SQLite could not reuse its log meanwhile, which would grow with every write."""

    def checkpoint() -> None:
        with contextlib.closing(sqlite3.connect(folder / "ledger.db", timeout=0)) as db:
            busy.append(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])

    busy: list[int] = []
    store.upsert([thing(n) for n in range(50, 60)])
    during_merge(checkpoint)
    store.merge()
    assert busy == [0]


def test_a_view_never_changes(store: Store, folder: Path) -> None:
    """Other threads may be searching a view while the next one is derived from it."""
    with _open(folder) as reader:
        store.upsert([thing(n) for n in range(50, 60)])
        store.delete(["t1"])
        _ids(reader, 0)
        view = reader._views[""]
        before = view.search(vector(0)[None], 100)
        store.delete(["t3", "t55"])
        store.upsert([thing(n) for n in range(60, 65)])
        assert sorted(_ids(reader, 0)) == sorted(store.list())
        assert view.search(vector(0)[None], 100) == before


def test_an_unreadable_graph_is_reported_after_the_retries(store: Store, folder: Path) -> None:
    (path,) = (folder / "graphs").glob("[!.]*/rows")
    path.unlink()
    with _open(folder) as reader, pytest.raises(CheckpointError, match="rows"):
        reader.query(vector(0), 5)


# Merges and concurrent writes


def test_a_restore_during_a_merge_discards_the_merge(
    store: Store, folder: Path, during_merge: Callable[[Callable[[], object]], None]
) -> None:
    store.snapshot("monday")
    store.upsert([thing(n, number=n) for n in range(50, 70)])
    ledger = Ledger(folder / "ledger.db", 5)
    during_merge(lambda: restore_snapshot(ledger, folder / "snapshots", "monday"))
    store.merge()
    ledger.close()
    assert _graph_columns(folder) == (None, None, None)
    assert store.namespaces() == {"": 50}
    # The restored ledger hands out the row numbers of the lost items again.
    store.upsert([thing(n, number=n) for n in range(200, 220)])
    _assert_exact(store)
    store.merge()
    _assert_exact(store)
    assert list(store.verify()) == []


def test_a_deletion_during_a_merge_keeps_its_tombstones(
    store: Store, folder: Path, during_merge: Callable[[Callable[[], object]], None]
) -> None:
    with _open(folder) as other:
        store.upsert([thing(n) for n in range(50, 60)])
        during_merge(lambda: other.delete(["t1", "t55"]))
        store.merge()
        assert "t1" not in _ids(other, 1)
        _assert_exact(store)
    with _open(folder) as late:
        _assert_exact(late)


def test_an_insertion_during_a_merge_stays_unmerged(
    store: Store, folder: Path, during_merge: Callable[[Callable[[], object]], None]
) -> None:
    with _open(folder) as other:
        store.upsert([thing(n) for n in range(50, 60)])
        during_merge(lambda: other.upsert([thing(99)]))
        store.merge()
        assert store.describe().namespaces[""].unmerged == 1
        assert _ids(store, 99, 1) == _ids(other, 99, 1) == ["t99"]


def test_a_namespace_dropped_during_a_merge_stays_dropped(
    store: Store, folder: Path, during_merge: Callable[[Callable[[], object]], None]
) -> None:
    with _open(folder) as other:
        store.upsert([thing(n) for n in range(50, 60)])
        during_merge(other.drop)
        store.merge()
        assert store.namespaces() == {}
        assert [path for path in (folder / "graphs").iterdir() if path.is_dir()] == []


def test_one_merge_runs_at_a_time(
    store: Store, folder: Path, during_merge: Callable[[Callable[[], object]], None]
) -> None:
    """A second merge waits, so it never removes the graph that the first is about to publish."""
    with _open(folder) as other:
        second = threading.Thread(target=other.merge)
        finished_early: list[bool] = []

        def merge_too() -> None:
            second.start()
            second.join(0.3)
            finished_early.append(not second.is_alive())

        store.upsert([thing(n) for n in range(50, 60)])
        during_merge(merge_too)
        store.merge()
        second.join()
    assert finished_early == [False]
    _assert_exact(store)


def test_deletions_alone_make_a_background_merge_due(store: Store, folder: Path) -> None:
    with _open(folder, background=True, merge_after=10) as background:
        background.delete([f"t{n}" for n in range(10)])
    assert _graph_columns(folder)[2] == 10  # the last tombstone


def test_a_merged_segment_has_the_rows_of_the_ledger(store: Store, folder: Path) -> None:
    store.delete(["t3", "t7"])
    store.merge()
    (path,) = [path for path in (folder / "graphs").iterdir() if path.is_dir()]
    rows = GraphSegment.open(path).rows
    with store._ledger.reading() as db:
        expected = [row for (row,) in db.execute("SELECT row FROM items ORDER BY row")]
    assert sorted(rows[rows >= 0].tolist()) == expected


# Snapshots


def test_a_restore_starts_a_new_epoch_without_graphs(store: Store, folder: Path) -> None:
    """A snapshot may name a removed graph, and readers may cache a state with its change count."""
    epoch = store.settings["epoch"]
    store.snapshot("monday")
    ledger = Ledger(folder / "ledger.db", 5)
    restore_snapshot(ledger, folder / "snapshots", "monday")
    ledger.close()
    assert store.settings["epoch"] != epoch
    assert _graph_columns(folder) == (None, None, None)


@pytest.mark.parametrize("later", [[3], [3, 4]], ids=["as many changes", "more changes"])
def test_a_view_does_not_survive_a_restore(folder: Path, later: list[int]) -> None:
    """A restored ledger reuses the row numbers and the change counts of the lost writes."""
    with _open(folder, dimensions=DIMENSIONS) as store, _open(folder) as reader:
        store.upsert([thing(1)])
        store.snapshot("monday")
        store.upsert([thing(2)])
        assert _ids(reader, 2) == ["t2", "t1"]
        ledger = Ledger(folder / "ledger.db", 5)
        restore_snapshot(ledger, folder / "snapshots", "monday")
        ledger.close()
        for number in later:
            store.upsert([thing(number)])
        hit = reader.query(vector(3), 1)[0]
        assert (hit.id, hit.score) == ("t3", pytest.approx(1))


def test_a_snapshot_with_a_damaged_page_is_refused(store: Store, folder: Path) -> None:
    path = store.snapshot("monday")
    data = bytearray(path.read_bytes())
    data[5 * 8192 : 6 * 8192] = bytes(8192)
    path.write_bytes(data)
    before = list(store.items())
    with pytest.raises(CheckpointError, match=r"monday\.db is damaged"):
        store.restore("monday")
    assert list(store.items()) == before


# The ledger


def test_every_connection_flushes_each_write_to_the_disk(store: Store, folder: Path) -> None:
    ledger = Ledger(folder / "ledger.db", 5)
    found: list[tuple[int, str]] = []

    def look() -> None:
        with ledger.connection() as db:
            (synchronous,) = db.execute("PRAGMA synchronous").fetchone()
            (journal,) = db.execute("PRAGMA journal_mode").fetchone()
            found.append((synchronous, journal))

    look()
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    ledger.close()
    assert found == [(2, "wal")] * 2  # 2 is FULL


def test_files_are_flushed_before_they_get_their_names(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure, a name never leads to a file whose content was not yet on the disk."""
    flushed: set[int] = set()
    fsync = os.fsync

    def record(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    snapshot = store.snapshot("monday")
    assert snapshot.stat().st_ino in flushed
    assert snapshot.parent.stat().st_ino in flushed
    store.upsert([thing(n) for n in range(50, 60)])
    store.merge()
    (graph,) = (folder / "graphs").glob("[!.]*/graph")
    for path in (graph, graph.with_name("rows"), graph.parent, graph.parent.parent):
        assert path.stat().st_ino in flushed, path


def test_a_failed_write_leaves_nothing_and_frees_the_ledger(store: Store) -> None:
    changes = store.settings["changes"]

    def fail() -> None:
        with store._ledger.writing() as db:
            db.execute("DELETE FROM items")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert store.namespaces() == {"": 50}
    assert store.settings["changes"] == changes
    store.upsert([thing(50)])


def test_a_read_sees_one_state_while_another_process_writes(store: Store, folder: Path) -> None:
    ledger = Ledger(folder / "ledger.db", 5)
    count = "SELECT count(*) FROM items"
    with ledger.reading() as db:
        before = db.execute(count).fetchone()
        store.upsert([thing(50)])
        assert db.execute(count).fetchone() == before
    ledger.close()


def test_a_forked_process_opens_its_own_connection(store: Store) -> None:
    """SQLite's connections must not be used on both sides of a fork."""
    with store._ledger.connection() as db:
        parent = id(db)
    child = os.fork()
    if not child:
        try:
            with store._ledger.connection() as db:
                os._exit(id(db) == parent)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_two_processes_create_one_ledger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process finds the tables of the first once it has the write lock."""
    folder.mkdir()
    path = folder / "ledger.db"
    settings: dict[str, str | int] = {"dimensions": DIMENSIONS, "metric": "cosine"}
    has_tables = ledger_module._has_tables
    epochs: list[str] = []

    def answer_then_create(db: sqlite3.Connection) -> bool:
        monkeypatch.setattr(ledger_module, "_has_tables", has_tables)
        answer = has_tables(db)
        Ledger.create(path, 5, settings)
        with _open(folder) as store:
            epochs.append(store.settings["epoch"])
        return answer

    monkeypatch.setattr(ledger_module, "_has_tables", answer_then_create)
    Ledger.create(path, 5, settings)
    with _open(folder) as store:
        assert [store.settings["epoch"]] == epochs


def test_a_ledger_created_a_moment_ago_is_not_foreign(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may read the tables of a ledger, but not an application id from before them."""
    folder.mkdir()
    path = folder / "ledger.db"
    settings: dict[str, str | int] = {"dimensions": DIMENSIONS, "metric": "cosine"}
    application_id = ledger_module._application_id

    def read_then_create(db: sqlite3.Connection) -> int:
        monkeypatch.setattr(ledger_module, "_application_id", application_id)
        answer = application_id(db)
        if not db.in_transaction:
            Ledger.create(path, 5, settings)
        return answer

    monkeypatch.setattr(ledger_module, "_application_id", read_then_create)
    Ledger.create(path, 5, settings)
    with _open(folder) as store:
        assert store.namespaces() == {}


# Verification and concurrent writes


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


def test_verify_waits_for_a_writer_and_does_not_call_it_damage(store: Store, folder: Path) -> None:
    with _writing(folder), pytest.raises(InputError, match="being written by another process"):
        list(store.verify())
    with _open(folder, wait=20) as patient:
        writer = threading.Thread(target=lambda: _hold(folder, 0.3))
        writer.start()
        assert list(patient.verify()) == []
        writer.join()
    changes = store.settings["changes"]
    assert list(store.verify()) == []
    assert store.settings["changes"] == changes


def _hold(folder: Path, seconds: float) -> None:
    with _writing(folder):
        time.sleep(seconds)


def test_verify_skips_a_namespace_dropped_meanwhile(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_segment = GraphSegment.open

    def drop_then_open(path: Path, **options: Any) -> GraphSegment:
        store.drop()
        return open_segment(path, **options)

    with _open(folder) as other:
        monkeypatch.setattr(GraphSegment, "open", drop_then_open)
        assert list(other.verify()) == []


# Exports


def test_an_interrupted_export_leaves_the_old_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("old")
    progress = write_jsonl(store, path)
    assert next(progress) == 50
    progress.close()  # type: ignore[attr-defined]
    assert path.read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index", "items.jsonl"]
