"""Real processes that are killed, that write at once, that read while others write."""

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
    """Kill a writer a moment after it began an operation of a kind, its fifth at the earliest.

    Returns how many operations it acknowledged, the number of the last and of the one under way.
    """
    assert process.stdout is not None
    lines: list[str] = []
    while len(lines) < 10 or lines[-1].split()[::2] != ["begin", kind]:
        line = process.stdout.readline()
        assert line, "the writer ended by itself"
        lines.append(line)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    lines += rest.splitlines()
    done = [int(line.split()[1]) for line in lines if line.startswith("done")]
    begun = [line.split() for line in lines if line.startswith("begin")]
    under_way = begun[-1][2] if int(begun[-1][1]) != done[-1] else "between"
    return len(done), done[-1], under_way


def _assert_right(folder: Path, possible: list[dict[str, Item]]) -> dict[str, Item]:
    """The store is one of the possible states, undamaged, and searches answer from that state."""
    with _open(folder) as store:
        found = {item.id: item for item in store.items(vectors=True)}
        state = next((s for s in possible if s == found), None)
        assert state is not None, "an acknowledged write is missing, or half of one is there"
        for id, item in state.items():
            assert found[id].vector.tobytes() == item.vector.tobytes()
        assert list(store.verify()) == []
        hits = wrong = 0
        for seed in range(10**6, 10**6 + 20):
            wanted = {id for id, _ in nearest(list(state.values()), vector(seed), 10)}
            got = {hit.id for hit in store.query(vector(seed), 10)}
            hits, wrong = hits + len(wanted), wrong + len(wanted - got)
        assert wrong <= 0.02 * hits
        if state:
            some = next(iter(state.values()))
            assert store.query(some.vector, 1, filter={"written": some.metadata["written"]})
            assert some.id in {hit.id for hit in store.match(some.text, 50)}
    return state


def _rounds(folder: Path, kills: int, seed: int) -> Counter[str]:
    chance = random.Random(seed)
    state: dict[str, Item] = {}
    killed = Counter[str]()
    first = 0
    for turn in range(kills):
        kind = ("upsert", "merge", "compact", "delete", "update")[turn % 5]
        done, last, under_way = _kill_during(
            _start("writer.py", folder, first), kind, chance.random() ** 2 * 0.08
        )
        assert last == first + done - 1
        for number in range(first, last + 1):
            state = Operation(number).model(state)
        killed[under_way] += 1
        state = _assert_right(folder, [state, Operation(last + 1).model(state)])
        first = last + 2  # the one under way may have happened; what follows does not ask
    return killed


def test_killed_writers_lose_nothing(tmp_path: Path) -> None:
    killed = _rounds(tmp_path / "index", 5, 1)
    assert killed.total() == 5


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
    # Each item is as one of its writers left it; the last to touch it is not known.
    written = {n: {i.id: i for i in Operation(n).items()} for n in upserts if n < 80}
    for id, item in items.items():
        assert id in written[item.metadata["written"]]
    # What only one operation ever touched, apart from merging and compacting, must be there.
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
    """Be in the middle of a write to a store."""
    with contextlib.closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield


def test_a_second_writer_waits_or_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    first = Store.open(folder, dimensions=DIMENSIONS)
    second = Store.open(folder, wait=0.1)
    first.upsert([thing(0)])
    with _writing(folder):
        with pytest.raises(InputError, match="is being written by another process"):
            second.upsert([thing(1)])
        assert list(second.list()) == ["t0"]  # reading waits for nobody
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


def _kill_build(folder: Path, drawn: int, ripe: Callable[[], bool]) -> tuple[int, int]:
    """Kill a build that has drawn so many items as soon as it is ripe.

    Returns how many items it had drawn, and how many it had encoded by then.
    """
    process = _start("builder.py", folder)
    assert process.stdout is not None
    line = "0 0"
    while int(line.split()[0]) < drawn:
        line = process.stdout.readline()
        assert line, "the build ended by itself"
    while not ripe():
        assert process.poll() is None, "the build ended by itself"
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    drawn, encoded = map(int, (rest or line).splitlines()[-1].split())
    return drawn, encoded


def test_a_killed_build_goes_on(tmp_path: Path) -> None:
    """Killed among its batches, then while it makes the graph, a build ends as if it never was."""
    folder = tmp_path / "index"
    drawn, _ = _kill_build(folder, 3000, lambda: True)
    with Store.open(folder) as store:
        written = store.namespaces()[""]
        assert drawn - 512 <= written <= drawn  # no more is lost than the batch under way
    merging = folder / "graphs" / ".lock"
    drawn, encoded = _kill_build(folder, builder.ITEMS, merging.exists)
    assert drawn == builder.ITEMS
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
        asked = [f"kind{n} shape{n % 7}" for n in range(40)]
        hits = [index.search(text, 10, mode="dense") for text in asked]
        found = np.array([[int(hit.id[1:]) for hit in one] for one in hits])
        points = encoder.encode([item.text for item in items], kind="document")
        assert recall(found, points, encoder.encode(asked, kind="query"), "cosine") >= 0.99
        assert index.search("number77", 1, mode="lexical")[0].id == "i77"
