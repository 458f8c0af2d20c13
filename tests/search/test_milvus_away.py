"""A Milvus cluster that is away, or goes away: one clear line, and no tracebacks of its client."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from idiolect.errors import CheckpointError
from idiolect.search.index import Index
from idiolect.search.milvus.milvus_store import MilvusStore
from search.things import DIMENSIONS, thing, vector

AWAY = r"Milvus: .*server.*check that the cluster is running"


def test_a_cluster_that_is_away_is_one_clear_error() -> None:
    pytest.importorskip("pymilvus")
    with pytest.raises(CheckpointError, match=AWAY):
        MilvusStore.open("http://localhost:19", "things", dimensions=DIMENSIONS)


def test_a_cluster_that_goes_away_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = pytest.importorskip("milvus_lite.server_manager").server_manager_instance
    index = Index(MilvusStore.open(str(tmp_path / "milvus.db"), "things", dimensions=DIMENSIONS))
    index.add([thing(1)])
    assert len(index) == 1
    servers.release_all()
    calls: list[Callable[[], object]] = [
        lambda: index.search_vectors(vector(1)),
        lambda: index.search("thing", mode="lexical"),
        lambda: index.get("t1"),
        lambda: index.add([thing(2)]),
        lambda: index.delete(["t1"]),
        lambda: len(index),
    ]
    printed = io.StringIO()  # by the client, which writes to its own handler
    log = logging.getLogger("pymilvus")
    monkeypatch.setattr(log, "handlers", [logging.StreamHandler(printed)])
    for call in calls:
        with pytest.raises(CheckpointError, match=AWAY):
            call()
    assert printed.getvalue() == ""
    assert "MilvusStore" in repr(index)
