"""A served run: what it offers, and how a rebuilt one takes its place."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from idiolect.errors import CheckpointError, ConfigError, IdiolectError, InputError
from idiolect.search.index import Index
from idiolect.serve import server
from idiolect.serve.http_errors import OverloadedError
from idiolect.serve.serve_settings import ServeSettings
from idiolect.serve.served_folder import ServedFolder
from idiolect.serve.service import Service
from idiolect.serve.work.work_pool import WorkPool
from serve import served


def test_a_rebuilt_index_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    index = served.write_index(tmp_path)
    service = Service(ServeSettings(path=str(index)))
    assert not service.reload()
    with service.using() as old:
        other = served.write_index(tmp_path / "new", [served.Item("n1", "a b")])
        shutil.rmtree(index)
        assert not service.reload(), "nothing is there in between"
        assert old.index is not None
        assert old.index.search("a", 1)[0].id == "p1"
        shutil.copytree(other, index)
        assert service.reload()
        assert old.index.search("a", 1, "dense")[0].id == "p1", "until its last request ends"
    _wait_until_closed()
    with pytest.raises(Exception, match=r"shutting down|closed"):
        old.index.search("a", 1, "dense")
    with service.using() as fresh:
        assert fresh.index is not None
        assert fresh.index.search("a", 1)[0].id == "n1"
    service.close()


def test_a_changed_copy_takes_the_place_of_the_index(tmp_path: Path) -> None:
    index = served.write_index(tmp_path)
    service = Service(ServeSettings(path=str(index)))
    shutil.copytree(index, tmp_path / "copy")
    with Index.open(tmp_path / "copy") as copy:
        copy.add([served.Item("n1", "a b")])
    index.rename(tmp_path / "old")
    (tmp_path / "copy").rename(index)
    with service.using() as parts, pytest.raises(CheckpointError, match="replaced"):
        parts.need("index").add([served.Item("lost", "a b")])
    assert service.reload()
    assert not service.reload()
    with service.using() as parts:
        parts.need("index").add([served.Item("n2", "a b")])
        assert "n1" in parts.need("index")
    service.close()
    with Index.open(index) as opened:
        assert "n2" in opened
        assert "lost" not in opened


def test_a_damaged_rebuild_is_not_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = served.write_index(tmp_path)
    service = Service(ServeSettings(path=str(index)))
    (index / "ledger.db").rename(tmp_path / "away")
    (index / "ledger.db").write_bytes(b"damaged" * 1000)
    assert not service.reload()
    assert not service.reload()
    assert caplog.text.count("cannot be served") == 1
    with service.using() as parts:
        assert parts.index is not None
        assert parts.encoder is not None
    service.close()


def _wait_until_closed() -> None:
    for thread in threading.enumerate():
        if thread.name == "closing":
            thread.join()


def test_a_rebuild_that_fails_leaves_nothing_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = served.write_index(tmp_path)
    service = Service(ServeSettings(path=str(index)))

    def full(location: str) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("idiolect.ranking.cross_encoder.CrossEncoder.load", full)
    service.settings = replace(service.settings, reranker="any")
    _wait_until_closed()  # of the tests before
    open_files, threads = [], threading.active_count()
    for turn in range(5):
        monkeypatch.setattr(ServedFolder, "version", f"new {turn}")
        assert not service.reload()
        assert not service.reload()
        open_files.append(len(os.listdir("/proc/self/fd")))
    assert caplog.text.count("cannot be served: out of memory") == 5
    assert threading.active_count() == threads
    assert open_files[-1] == open_files[0], "the first file is kept by SQLite, for its locks"
    service.close()


def test_a_rebuild_whose_encoder_arrives_later_is_served_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = served.write_index(tmp_path)
    service = Service(ServeSettings(path=str(index)))
    other = served.write_index(tmp_path / "new", [served.Item("n1", "a b")])
    for folder in (tmp_path, tmp_path / "new"):  # an encoder next to the index is also found
        (folder / "encoder").rename(folder / "away")
    shutil.rmtree(index)
    shutil.copytree(other, index)
    now = [1000.0]
    monkeypatch.setattr("idiolect.serve.service.time.monotonic", lambda: now[0])
    assert not service.reload()
    (tmp_path / "away").rename(tmp_path / "encoder")
    assert not service.reload(), "not with every look: it may take long"
    now[0] += 61
    assert service.reload()
    assert caplog.text.count("cannot be served") == 1
    with service.using() as parts:
        assert "n1" in parts.need("index")
    service.close()


def test_gauges_are_updated_by_workers_that_are_not_asked_for_them(folder: Path) -> None:
    with served.serving(folder / "index", reload_seconds=0.01) as client:
        service: Service = client.app.state.service  # type: ignore[attr-defined]
        service.metrics.waiting.labels("index").set(7)  # as it was when this worker was asked
        for _ in range(500):
            if (
                service.metrics.registry.get_sample_value(
                    "idiolect_waiting_requests", {"queue": "index"}
                )
                == 0
            ):
                break
            time.sleep(0.01)
        else:
            pytest.fail("the gauge is as it was")


def test_the_watch_survives_an_error_and_merges_what_other_workers_wrote(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = threading.Event()
    monkeypatch.setattr("idiolect.search.store.store.Store.merge_due", lambda self: merged.set())
    results = iter([ValueError("once")])

    def reload(self: Service) -> bool:
        for error in results:
            raise error
        return False

    monkeypatch.setattr(Service, "reload", reload)
    with served.serving(folder / "index", reload_seconds=0.01):
        assert merged.wait(10)


def test_a_write_whose_client_left_ends_before_its_index_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the event loop does not wait for the closing, which may take long."""
    service = Service(ServeSettings(path=str(served.write_index(tmp_path))))
    parts, closed = service.parts, list[str]()
    close, started, finish = parts._close, threading.Event(), threading.Event()
    deleted: list[int] = []

    def record_and_close() -> None:
        closed.append(threading.current_thread().name)
        close()

    monkeypatch.setattr(parts, "_close", record_and_close)

    def change() -> None:
        started.set()
        assert finish.wait(10)
        assert parts.index is not None
        deleted.append(parts.index.delete(["p1"]))

    async def request() -> None:
        with service.using():
            await service.write(change)

    async def leave() -> None:
        task = asyncio.create_task(request())
        await asyncio.to_thread(started.wait)
        task.cancel()
        await asyncio.wait({task})
        parts.retire()
        finish.set()
        while not closed:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), 20))
    _wait_until_closed()
    assert (deleted, closed) == ([1], ["closing"])
    service.close()


def test_an_answer_does_not_wait_for_its_confirmation() -> None:
    # With Nagle's algorithm, each answer on a kept connection takes 40 ms.
    with (
        server._listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_server_starts_without_what_only_training_needs() -> None:
    code = (
        "import sys, idiolect.serve.app; "
        "print(sorted({'sympy', 'torch.distributed.fsdp', 'transformers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_what_cannot_be_served_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        ServedFolder.find(str(tmp_path / "nothing"))
    (tmp_path / "run" / "stages").mkdir(parents=True)
    with pytest.raises(InputError, match="has no index yet"):
        ServedFolder.find(str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="max_body is 0"):
        ServeSettings(path="x", max_body=0)


@pytest.mark.parametrize(("exitcode", "is_replaced"), [(-9, True), (0, True), (1, False)])
def test_a_worker_that_was_killed_is_replaced_and_one_that_failed_is_not(
    exitcode: int, is_replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        workers = server._Supervisor(ServeSettings(path="x"), listener, 1, "http://x")
        dead = SimpleNamespace(exitcode=exitcode, is_alive=lambda: False, pid=0)
        workers._workers = [dead]
        monkeypatch.setattr(workers, "_start", lambda number: "new")
        monkeypatch.setattr(workers, "_forget", lambda worker: None)
        if is_replaced:
            workers._replace()
            assert workers._workers == ["new"]
        else:
            with pytest.raises(IdiolectError, match="a worker failed"):
                workers._replace()


def test_a_pool_refuses_what_its_queue_cannot_hold() -> None:
    go = threading.Event()

    async def fill() -> list[object]:
        pool = WorkPool("tests", 1, 2)
        work = [asyncio.ensure_future(pool.run(go.wait, 5)) for _ in range(3)]
        await asyncio.sleep(0.02)
        with pytest.raises(OverloadedError, match="wait for the tests"):
            await pool.run(go.wait)
        work[2].cancel()
        await asyncio.sleep(0.02)
        assert pool.pending == 2, "a cancelled one gives up its place"
        go.set()
        found = await asyncio.gather(*work[:2])
        assert pool.pending == 0
        pool.close()
        return list(found)

    assert asyncio.run(fill()) == [True, True]
