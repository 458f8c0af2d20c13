"""Soak test of the server: a shop's mix of requests for a long time, to two workers on one index.

    python benchmarks/serving_soak.py [--requests 1000000] [--clients 16] [--workers 2]

Each client chooses its requests at random: it reads, adds, changes and deletes items, searches
(hybrid, dense, lexical, filtered), asks for similar items, embeddings and recommendations, sends
invalid JSON, wrong fields and unknown ids, and sometimes disconnects before the response. Each
response must have the expected status, and an item that one worker has written must be read
unchanged from any worker. Memory, open files and threads of each worker are printed after every
twentieth of the requests. At the end the index is verified: all acknowledged items are there, no
deleted ones, no damage. The index begins with 2,000 items and uses a static encoder made of the
embedding rows of `idiolect-base`, with one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from serving import WORDS, Connection, ours

ITEMS = 2_000
OWN = 500
"""Number of item ids that belong to one client. No other client writes them."""


def text(draw: random.Random) -> str:
    """Return a random short text."""
    return " ".join(draw.choices(WORDS, k=draw.randint(2, 6)))


def build(folder: Path) -> Path:
    """Build the index and train the recommender; return the folder of the index."""
    from idiolect import Encoder, Index, Item, LanguageModel

    draw = random.Random(0)
    Encoder(LanguageModel.load("idiolect-base"), layers=0).save(folder / "encoder")
    items = [Item(f"i{n}", text(draw), {"price": n % 100}) for n in range(ITEMS)]
    Index.build(folder / "index", str(folder / "encoder"), items).close()
    lines = (
        json.dumps({"user": f"u{user}", "items": [f"i{draw.randrange(ITEMS)}" for _ in range(8)]})
        for user in range(500)
    )
    (folder / "histories.jsonl").write_text("\n".join(lines))
    train = ("recommend", "train", folder / "histories.jsonl", "-o", folder / "ease")
    command = [sys.executable, "-m", "idiolect", *map(str, train), "--model", "ease"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "index"


class Client:
    """A client with its own connection, random generator and items.

    Args:
        address: URL of the server.
        number: Random seed, and part of the ids of the client's items.
        counts: Counts requests by path and status; shared by all clients.
    """

    def __init__(self, address: str, number: int, counts: Counter[str]) -> None:
        self.address, self.number, self.counts = address, number, counts
        self.draw = random.Random(number)
        self.there: dict[str, str] = {}
        """Texts of the client's items that were acknowledged and not deleted, by id."""
        self.shares = {
            self.read: 35,
            self.wrong: 25,
            self.embeddings: 15,
            self.search: 8,
            self.health: 5,
            self.similar: 4,
            self.leave: 3,
            self.recommend: 2,
            self.add: 2,
            self.delete: 1,
        }

    async def run(self, count: int) -> None:
        """Send `count` requests, one after the other."""
        self.connection = await Connection(self.address).open()
        kinds, weights = list(self.shares), list(self.shares.values())
        for _ in range(count):
            await self.draw.choices(kinds, weights)[0]()
        self.connection.writer.close()

    async def ask(self, path: str, body: Any = None, expected: int = 200) -> dict[str, Any]:
        """Send a request and return the response.

        Raises:
            RuntimeError: The status is not the expected one.
        """
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        status, answer = await self.connection.ask(path, raw if method == "POST" else b"", method)
        name = path if method == "POST" else "GET " + path.rpartition("/")[0]
        self.counts[f"{name} {status}"] += 1
        if status != expected:
            raise RuntimeError(f"{path} {raw!r} was answered {status}: {answer[:300]!r}")
        found: dict[str, Any] = json.loads(answer)
        return found

    async def search(self) -> None:
        """Search in one of four ways."""
        ways = [{}, {"mode": "lexical"}, {"mode": "dense"}, {"filter": {"price": {"$lt": 50}}}]
        extra: dict[str, Any] = self.draw.choice(ways)
        found = await self.ask("/search", {"query": text(self.draw), "top_k": 5, **extra})
        prices = [hit["metadata"].get("price", 0) for hit in found["hits"]]
        if "filter" in extra and any(price >= 50 for price in prices):
            raise RuntimeError(f"hits outside the filter: {prices}")

    async def similar(self) -> None:
        """Request items similar to a random one."""
        await self.ask("/similar", {"id": f"i{self.draw.randrange(ITEMS)}", "top_k": 5})

    async def embeddings(self) -> None:
        """Encode one to four texts."""
        texts = [text(self.draw) for _ in range(self.draw.randint(1, 4))]
        found = await self.ask("/v1/embeddings", {"input": texts})
        assert len(found["data"]) == len(texts)

    async def recommend(self) -> None:
        """Request recommendations for a history of three items."""
        ids = [f"i{self.draw.randrange(ITEMS)}" for _ in range(3)]
        await self.ask("/recommend", {"history": ids, "top_k": 5})

    async def add(self) -> None:
        """Add or change up to three of the client's items."""
        own = {f"c{self.number}-{self.draw.randrange(OWN)}": text(self.draw) for _ in range(3)}
        items = [{"id": i, "text": t, "metadata": {"price": 1}} for i, t in own.items()]
        await self.ask("/items", {"items": items})
        self.there |= own

    async def delete(self) -> None:
        """Delete one of the client's items."""
        if self.there:
            one = self.draw.choice(list(self.there))
            found = await self.ask("/items/delete", {"ids": [one]})
            assert found["deleted"] == 1, one
            del self.there[one]

    async def read(self) -> None:
        """Read one of the client's items, and compare its text with the last one written."""
        if self.there:
            one = self.draw.choice(list(self.there))
            found = await self.ask(f"/items/{one}")
            assert found["text"] == self.there[one], one

    async def health(self) -> None:
        """Request the health check."""
        await self.ask("/health")

    async def wrong(self) -> None:
        """Send an invalid request."""
        path, body, status = self.draw.choice(
            [
                ("/search", b"{no json", 400),
                ("/search", {"query": "lamp", "top_k": -1}, 422),
                ("/search", {"query": "lamp", "filter": {"$no": 1}}, 400),
                ("/similar", {"id": "nobody"}, 404),
                ("/v1/embeddings", {"input": []}, 422),
                ("/nowhere", {}, 404),
            ]
        )
        await self.ask(path, body, status)

    async def leave(self) -> None:
        """Send a search and disconnect before the response."""
        body = json.dumps({"query": text(self.draw)}).encode()
        head = f"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        self.connection.writer.write(
            head.encode() + b"Content-Type: application/json\r\n\r\n" + body
        )
        await self.connection.writer.drain()
        self.connection.writer.close()
        self.connection = await Connection(self.address).open()
        self.counts["left"] += 1


def check(index: Path, clients: list[Client]) -> None:
    """Verify the index; print lost and reappeared items, and damage."""
    from idiolect import Index

    there = {id_: text for client in clients for id_, text in client.there.items()}
    with Index.open(str(index)) as opened:
        own = [f"c{client.number}-{n}" for client in clients for n in range(OWN)]
        found = {id_: item.text for id_, item in opened.store.fetch(own).items()}
        damage = list(opened.store.verify())
    lost = sum(found.get(id_) != text for id_, text in there.items())
    back = found.keys() - there.keys()
    print(f"{len(there):,} items acknowledged: {lost} lost; {len(back)} deleted ones are back")
    print(f"damage: {damage}")


def main() -> None:
    """Run the soak test."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        index = build(Path(folder))
        options = ("--recommender", f"{folder}/ease", "--workers", str(given.workers))
        with ours(str(index), *options) as (address, process):
            first = psutil.Process(process.pid)
            clients = [Client(address, n, counts) for n in range(given.clients)]
            share = max(1, given.requests // 20 // len(clients))

            async def run() -> None:
                await asyncio.gather(*(client.run(share) for client in clients))

            for _ in range(20):
                began, before = time.perf_counter(), counts.total()
                asyncio.run(run())
                rate = (counts.total() - before) / (time.perf_counter() - began)
                workers = first.children() or [first]
                print(
                    f"{counts.total():9,} requests  {rate:.0f}/s  MB, files, threads of each:",
                    [
                        (round(one.memory_info().rss / 1e6), one.num_fds(), one.num_threads())
                        for one in workers
                    ],
                    flush=True,
                )
        for name, count in sorted(counts.items()):
            print(f"{count:9,} {name}")
        check(index, clients)


if __name__ == "__main__":
    main()
