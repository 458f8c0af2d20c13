"""Fixtures that run one test suite on every kind of store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from idiolect.search.milvus.milvus_store import MilvusStore
from idiolect.search.store.any_store import AnyStore
from idiolect.search.store.store import Store
from search.things import DIMENSIONS


def _exact(folder: Path, **options: Any) -> AnyStore:
    return Store.open(folder / "index", background=False, **options)


def _graph(folder: Path, **options: Any) -> AnyStore:
    """Open a store that merges after every write, so that searches use a graph."""
    store = Store.open(folder / "index", merge_after=4, background=False, **options)
    write = store.upsert

    def upsert(*args: Any, **more: Any) -> None:
        write(*args, **more)
        store.merge()

    store.upsert = upsert  # type: ignore[method-assign]
    return store


def _milvus(folder: Path, **options: Any) -> AnyStore:
    pytest.importorskip("milvus_lite")
    # Its client asks every half second whether an index is built; here one is built at once.
    clock = SimpleNamespace(**vars(time) | {"sleep": lambda _: time.sleep(0.01)})
    with mock.patch("pymilvus.client.grpc_handler.time", clock):
        return MilvusStore.open(str(folder / "milvus.db"), "things", **options)


KINDS: dict[str, Callable[..., AnyStore]] = {"exact": _exact, "graph": _graph, "milvus": _milvus}


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., AnyStore]]:
    """Yield a function that opens an empty store of the current kind."""
    stores: list[AnyStore] = []

    def open_(**options: Any) -> AnyStore:
        stores.append(KINDS[request.param](tmp_path, **{"dimensions": DIMENSIONS, **options}))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., AnyStore]) -> AnyStore:
    return opened()
