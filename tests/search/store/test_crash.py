"""Processes that are killed, write concurrently, or read while others write."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.search.store.store import Store
from search.diskann.truth import recall
from search.store import builder
from search.store.writer import MERGE_AFTER, Operation
from search.things import DIMENSIONS, nearest, thing, vector


def _start(script: str, *arguments: object) -> subprocess.Popen[str]:
    path = Path(__file__).with_name(script)
    command = [sys.executable, str(path), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _open(folder: Path) -> Store:
    return Store.open(folder, merge_after=MERGE_AFTER, background=False)


def _kill_during(process: subprocess.Popen[str], kind: str, delay: float) -> tuple[int, int, str]:
    """Kill a writer shortly after it begins an operation of a kind, after at least four others.

    Returns how many operations it acknowledged, the last of them, and the kind of the running one.
    """
    assert process.stdout is not None
    lines: list[str] = []
    while len(lines) < 10 or lines[-1].split()[::2] != ["begin", kind]:
        line = process.stdout.readline()
        assert line, "the writer exited early"
        lines.append(line)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    lines += rest.rpartition("\n")[0].splitlines()  # the kill may have cut the last line
    done = [int(line.split()[1]) for line in lines if line.startswith("done")]
    begun = [line.split() for line in lines if line.startswith("begin")]
    running = begun[-1][2] if int(begun[-1][1]) != done[-1] else "between"
    return len(done), done[-1], running


def _assert_consistent(folder: Path, possible: list[dict[str, Item]]) -> dict[str, Item]:
    """Assert that the store has one of the possible states, is undamaged, and searches it."""
    with _open(folder) as store:
        found = {item.id: item for item in store.items(vectors=True)}
        state = next((s for s in possible if s == found), None)
        assert state is not None, "an acknowledged write is missing, or is incomplete"
        for id, item in state.items():
            assert found[id].vector.tobytes() == item.vector.tobytes()
        assert list(store.verify()) == []
        expected_hits = missing = 0
        for seed in range(10**6, 10**6 + 20):
            expected = {id for id, _ in nearest(list(state.values()), vector(seed), 10)}
            got = {hit.id for hit in store.query(vector(seed), 10)}
            expected_hits, missing = expected_hits + len(expected), missing + len(expected - got)
        assert missing <= 0.02 * expected_hits
        if state:
            some = next(iter(state.values()))
            assert store.query(some.vector, 1, filter={"written": some.metadata["written"]})
            assert some.id in {hit.id for hit in store.match(some.text, 50)}
    return state


def _rounds(folder: Path, kills: int, seed: int) -> Counter[str]:
    rng = random.Random(seed)
    state: dict[str, Item] = {}
    killed = Counter[str]()
    first = 0
    for turn in range(kills):
        kind = ("upsert", "merge", "compact", "delete", "update")[turn % 5]
        done, last, running = _kill_during(
            _start("writer.py", folder, first), kind, rng.random() ** 2 * 0.08
        )
        assert last == first + done - 1
        for number in range(first, last + 1):
            state = Operation(number).model(state)
        killed[running] += 1
        state = _assert_consistent(folder, [state, Operation(last + 1).model(state)])
        first = last + 2  # the running operation may or may not have happened
    return killed


def test_killed_writers_lose_nothing(tmp_path: Path) -> None:
    killed = _rounds(tmp_path / "index", 2, 1)
    assert killed.total() == 2


@pytest.mark.slow
def test_fifty_killed_writers_lose_nothing(tmp_path: Path) -> None:
    killed = _rounds(tmp_path / "index", 50, 2)
    print(f"killed during: {dict(killed)}")
    assert killed.total() == 50
    assert len(set(killed) & {"upsert", "merge", "compact"}) == 3, killed


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Store.open(folder, dimensions=DIMENSIONS).close()
    upserts = [n for n in range(400) if Operation(n).kind == "upsert"]
    writers = [_start("writer.py", folder, 0, 40), _start("writer.py", folder, 40, 80)]
    lines = [writer.communicate()[0].splitlines() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [len(one) for one in lines] == [80, 80]
    with _open(folder) as store:
        items = {item.id: item for item in store.items()}
        assert list(store.verify()) == []
    # Each item comes from one of its writers; which one was last is unknown.
    written = {n: {i.id: i for i in Operation(n).items()} for n in upserts if n < 80}
    for id, item in items.items():
        assert id in written[item.metadata["written"]]
    # Items that only one operation changed must be present.
    touched = Counter(
        id
        for n in range(80)
        for id in (Operation(n).ids if Operation(n).kind != "update" else Operation(n).ids[:1])
        if Operation(n).kind in ("upsert", "delete", "update")
    )
    filtered = {n - 9 for n in range(80) if Operation(n).kind == "filter"}
    for n, made in written.items():
        for id, item in made.items():
            if touched[id] == 1 and n not in filtered:
                assert items[id] == item


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Hold the write lock of a store."""
    with contextlib.closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


def test_a_second_writer_waits_or_fails(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    first = Store.open(folder, dimensions=DIMENSIONS)
    second = Store.open(folder, wait=0.1)
    first.upsert([thing(0)])
    with _writing(folder):
        with pytest.raises(InputError, match="is being written by another process"):
            second.upsert([thing(1)])
        assert list(second.list()) == ["t0"]  # reads never wait
    second.upsert([thing(1)])
    assert list(first.list()) == ["t0", "t1"]
    process = _start("writer.py", folder, 0, 1)
    with _writing(folder):
        time.sleep(1)
    process.communicate()
    assert process.returncode == 0
    first.close()
    second.close()


def test_readers_see_whole_writes_while_another_process_writes(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Store.open(folder, dimensions=DIMENSIONS).close()
    process = _start("writer.py", folder, 0, 30)
    with _open(folder) as store:
        reads = 0
        while process.poll() is None:
            counts = Counter(
                hit.metadata["written"]
                for hit in store.query(vector(reads), 1000)
                if "updated" not in hit.metadata
            )
            assert all(0 < count <= 20 for count in counts.values())
            ids = [hit.id for hit in store.query(vector(reads), 1000)]
            assert len(ids) == len(set(ids))
            reads += 1
        assert reads > 10
        assert process.returncode == 0
    process.communicate()


def _kill_build(folder: Path, read_count: int, ready: Callable[[], bool]) -> tuple[int, int]:
    """Kill a build that has read `read_count` items as soon as `ready` returns true.

    Returns the numbers of items it had read and encoded.
    """
    process = _start("builder.py", folder)
    assert process.stdout is not None
    line = "0 0"
    while int(line.split()[0]) < read_count:
        line = process.stdout.readline()
        assert line, "the build exited early"
    while not ready():
        assert process.poll() is None, "the build exited early"
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    complete = (line + rest).rpartition("\n")[0]  # the kill may have cut the last line
    read_count, encoded = map(int, complete.splitlines()[-1].split())
    return read_count, encoded


def test_a_killed_build_resumes(tmp_path: Path) -> None:
    """A build is killed between batches, then during the merge, and still completes the index."""
    folder = tmp_path / "index"
    read_count, _ = _kill_build(folder, 3000, lambda: True)
    with Store.open(folder) as store:
        written = store.namespaces()[""]
        assert read_count - 512 <= written <= read_count  # only the running batch is lost
    merging = folder / "graphs" / ".lock"
    read_count, encoded = _kill_build(folder, builder.ITEMS, merging.exists)
    assert read_count == builder.ITEMS
    assert encoded <= builder.ITEMS - written
    with Store.open(folder) as store:
        assert store.describe().namespaces[""].unmerged == builder.ITEMS
    last, _ = _start("builder.py", folder).communicate()
    assert last.splitlines()[-1] == f"written 0, unchanged {builder.ITEMS}, encoded 0"
    items = list(builder.items())
    encoder = builder.encoder()
    with Index.open(folder, encoder) as index:
        assert list(index.store.items()) == items
        assert index.store.describe().namespaces[""].unmerged == 0
        assert list(index.store.verify()) == []
        queries = [f"kind{n} shape{n % 7}" for n in range(40)]
        hits = [index.search(text, 10, mode="dense") for text in queries]
        found = np.array([[int(hit.id[1:]) for hit in one] for one in hits])
        points = encoder.encode([item.text for item in items], prompt_name="document")
        assert recall(found, points, encoder.encode(queries, prompt_name="query"), "cosine") >= 0.99
        assert index.search("number77", 1, mode="lexical")[0].id == "i77"
