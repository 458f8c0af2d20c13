"""A server as a process: how it ends, what survives when it is killed, and slow clients."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import idiolect
from idiolect.search.index import Index
from idiolect.search.items import Item
from serve import served
from serve.processes import running

pytestmark = pytest.mark.slow
httpx = pytest.importorskip("httpx")


def test_sigterm_ends_streams_and_the_exit_status_is_0(folder: Path) -> None:
    body = {"prompt": "w3", "max_tokens": 4000, "stream": True, "seed": 1}
    with running(folder / "writer", "--grace-period", "5") as (url, process):
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=20) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert process.wait(10) == 0
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"]


def test_a_killed_server_loses_no_acknowledged_item(tmp_path: Path) -> None:
    index = served.write_index(tmp_path)
    draw, acknowledged = random.Random(5), list[str]()
    for moment in range(2):
        with running(index) as (url, process):
            with idiolect.Client(url, retries=0) as client:
                for n in range(100_000):
                    if n == 1:
                        threading.Timer(draw.uniform(0.0, 0.5), process.kill).start()
                    id = f"{moment}-{n}"
                    try:
                        client.add([Item(id, draw.choice("abcdefgh") + " b c")])
                    except idiolect.errors.OfflineError:
                        break
                    acknowledged.append(id)
            process.wait(10)
    with Index.open(index) as opened:
        assert acknowledged
        assert all(id in opened for id in acknowledged)
        assert not list(opened.store.verify())


def test_several_workers_read_while_one_writes(tmp_path: Path) -> None:
    index = served.write_index(tmp_path)
    with running(index, "--workers", "2") as (url, process):
        seen = set()
        with idiolect.Client(url, retries=0) as client:
            for n in range(20):
                client.add([Item(f"n{n}", "a b c")])
                with idiolect.Client(url) as other:  # another connection, perhaps another worker
                    assert f"n{n}" in other
                    seen.add(other.get(f"n{n}") is not None)
            assert client.delete([f"n{n}" for n in range(20)]) == 20
        metrics = httpx.get(f"{url}/metrics").text
        assert 'idiolect_requests_total{route="/items",status="200"} 20.0' in metrics
        process.terminate()
        assert process.wait(20) == 0


def test_workers_end_with_a_supervisor_that_was_killed(folder: Path) -> None:
    with running(folder / "writer", "--workers", "2") as (url, process):
        address = urlsplit(url)
        place = (str(address.hostname), int(address.port or 0))
        with idiolect.Client(url) as client:
            assert client.info
        process.kill()
        process.wait()
        for _ in range(200):
            try:
                socket.create_connection(place, timeout=5).close()
            except OSError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("a worker still listens")


def test_clients_that_send_headers_slowly_are_closed(folder: Path) -> None:
    code = (
        "import sys; from idiolect.serve.server import serve; "
        "from idiolect.serve.serve_settings import ServeSettings; "
        "serve(ServeSettings(path=sys.argv[1], body_timeout=0.5), port=0)"
    )
    command = [sys.executable, "-c", code, str(folder / "index")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as p:
        assert p.stdout is not None
        where = urlsplit(p.stdout.readline().split()[-1])
        for sent in (b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: x\r\nA: b"):
            with socket.create_connection((where.hostname, where.port), timeout=5) as connection:
                connection.sendall(sent)
                connection.settimeout(60)
                assert connection.recv(100) == b""
        with socket.create_connection((where.hostname, where.port), timeout=5) as connection:
            connection.sendall(b"not HTTP\r\n\r\n")
            assert b"application/json" in connection.recv(10_000)
        with httpx.Client(base_url=where.geturl()) as client:  # a connection that is used again
            for _ in range(3):
                assert client.get("/health").status_code == 200
                time.sleep(0.7)
        p.terminate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no nothing"),
        (["nothing", "--workers", "2"], "there is no nothing"),
        ([".", "--port", "99999"], "--port"),
        ([".", "--keys", "missing.json"], "missing.json"),
        ([".", "--max-body", "3"], "max-body"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    arguments: list[str], message: str, folder: Path, tmp_path: Path
) -> None:
    given = [str(folder / "index") if one == "." else one for one in arguments]
    command = [sys.executable, "-m", "idiolect", "serve", *given]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
