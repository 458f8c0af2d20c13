"""A Ray cluster of small nodes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 200 << 20, "include_dashboard": False}


@contextmanager
def cluster(nodes: int = 2) -> Iterator[Any]:
    """Start a cluster and connect to it; stop all of its processes in the end."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    from idiolect.scale.cluster import connect

    started = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        for _ in range(nodes - 1):
            started.add_node(num_cpus=1, object_store_memory=NODE["object_store_memory"])
        connect(started.address)
        yield started
    finally:
        ray.shutdown()
        started.shutdown()
