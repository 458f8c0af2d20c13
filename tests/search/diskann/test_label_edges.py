"""Labels in a disk graph: each has edges of its own, which hold through updates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from idiolect.errors import CheckpointError
from idiolect.search.diskann import DiskGraph
from idiolect.search.diskann.array_file import ArrayFile, write_arrays
from idiolect.search.diskann.disk.disk_file import DISK_KIND, DISK_VERSION
from idiolect.search.diskann.disk.disk_update import update_disk_graph
from idiolect.search.diskann.disk.flat_vectors import FlatVectors
from idiolect.search.diskann.disk.label_edges import label_groups
from idiolect.search.diskann.disk.partitioned_build import build_partitioned
from idiolect.search.diskann.row_mask import RowMask
from search.diskann.truth import clusters, recall

ROWS, WIDTH = 2000, 32
QUERIES = clusters(30, WIDTH, seed=1)
LABELS = np.random.default_rng(0).choice(5, ROWS, p=[0.5, 0.3, 0.15, 0.0495, 0.0005])
LABELS = LABELS.astype(np.int32)
LABELS[:3] = -1


@pytest.fixture(scope="module", params=[ROWS, ROWS // 4], ids=["one shard", "several"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("labels")
    points = clusters(ROWS, WIDTH)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    file = FlatVectors.create(folder / "vectors", WIDTH, [points])
    build_partitioned(folder / "graph", file, max_rows=request.param, labels=LABELS)
    return points, folder / "graph"


def _assert_labels(
    graph: DiskGraph, points: NDArray[np.float32], labels: NDArray[np.int32], least: float
) -> None:
    """Search for the rows of each label, following only edges of that label."""
    assert graph.labels is not None
    assert labels[graph.labels.entries].tolist() == list(range(labels.max() + 1))
    for label in range(labels.max() + 1):
        mask = labels == label
        plan = graph._plan(64, 4, RowMask(mask))
        assert (plan.label, plan.scan) == (label, False)
        ids, _ = graph.search(QUERIES, min(10, int(mask.sum())), mask=mask)
        assert mask[ids].all()
        assert recall(ids, points, QUERIES, "cosine", mask) >= least


def test_a_search_for_a_label_follows_its_edges(built) -> None:
    points, path = built
    graph = DiskGraph.open(path, verify=True)
    _, edges = graph.nodes(np.arange(ROWS))
    own = edges[:, graph.file.degree :]
    assert own.shape[1] == graph.file.label_degree
    for row in range(ROWS):
        near = own[row][own[row] >= 0]
        assert (LABELS[near] == LABELS[row]).all()
        assert len(near) == 0 or LABELS[row] >= 0
    _assert_labels(graph, points, LABELS, 0.98)


def test_a_condition_beside_the_label_and_several_labels(built) -> None:
    points, path = built
    graph = DiskGraph.open(path)
    some = np.random.default_rng(3).random(ROWS) < 0.7
    for mask in ((LABELS == 0) & some, LABELS <= 1, LABELS < 0, (LABELS == 3) & some):
        ids, _ = graph.search(QUERIES, min(10, int(mask.sum())), mask=mask)
        assert mask[ids].all()
        assert recall(ids, points, QUERIES, "cosine", mask) >= 0.98


@pytest.mark.parametrize("fewer", [0.05, 0.7])
def test_updates_keep_the_edges_of_labels(built, tmp_path: Path, fewer: float) -> None:
    """Entries are deleted, a label ends, one begins, and all are numbered anew."""
    points, path = built
    graph = DiskGraph.open(path)
    assert graph.labels is not None
    rng = np.random.default_rng(4)
    dead = np.union1d(np.flatnonzero(rng.random(ROWS) < fewer), graph.labels.entries)
    dead = np.union1d(dead, np.flatnonzero(LABELS == 4))
    kept = np.delete(np.arange(ROWS), dead)
    new = clusters(300, WIDTH, seed=5)
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    of_new = rng.choice(np.array([0, 1, 4, -1], np.int32), 300)
    labels = np.concatenate([LABELS[kept], of_new])
    labels = np.array([2, 4, 1, 0, 3, -1], np.int32)[labels]
    update_disk_graph(tmp_path / "next", graph, dead, new, labels=labels)
    changed = DiskGraph.open(tmp_path / "next", verify=True)
    _assert_labels(changed, np.concatenate([points[kept], new]), labels, 0.97)
    ids, _ = changed.search(QUERIES, 10)
    assert recall(ids, np.concatenate([points[kept], new]), QUERIES, "cosine") >= 0.95


def test_groups_of_labels() -> None:
    labels = np.array([1, -1, 0, 1, -1, 0, 2], np.int32)
    assert [group.tolist() for group in label_groups(labels)] == [[2, 5], [0, 3], [6]]
    assert label_groups(np.full(3, -1, np.int32)) == []
    assert label_groups(np.empty(0, np.int32)) == []


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("labels", np.full(ROWS, 5, np.int32)),
        ("labels", np.full(ROWS, -2, np.int32)),
        ("labels", np.zeros(ROWS - 1, np.int32)),
        ("entries", np.array([0, 1, 2, 3, ROWS])),
        ("entries", np.array([0])),
        ("entries", np.zeros(5, np.int64)),
    ],
)
def test_labels_that_do_not_fit_are_damage(built, tmp_path: Path, name: str, array) -> None:
    file = ArrayFile(built[1], DISK_KIND, DISK_VERSION)
    names = ("alive", "products", "centres", "rotation", "labels", "entries", "pages")
    arrays = {one: file.array(one) for one in names}
    write_arrays(tmp_path / "x", DISK_KIND, DISK_VERSION, file.facts, arrays)
    DiskGraph.open(tmp_path / "x")
    write_arrays(tmp_path / "y", DISK_KIND, DISK_VERSION, file.facts, {**arrays, name: array})
    with pytest.raises(CheckpointError, match="do not fit"):
        DiskGraph.open(tmp_path / "y")
