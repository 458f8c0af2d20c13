"""The disk graph against exact search, and its detection of damaged pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.search.diskann import DiskGraph, Graph
from idiolect.search.diskann.array_file import ArrayFile
from search.diskann.truth import clusters, recall, scores_of

QUERIES = clusters(60, 72, seed=1)


@pytest.fixture(scope="module", params=["cosine", "inner", "l2"])
def graph(request: pytest.FixtureRequest):
    points = clusters(3000, 72, lengths=0.2)
    return request.param, points, Graph.build(points, metric=request.param, degree=32, list_size=64)


@pytest.fixture(params=["pq", "rabitq"])
def on_disk(request: pytest.FixtureRequest, graph, tmp_path: Path):
    metric, points, memory = graph
    DiskGraph.write(tmp_path / "disk", memory, codes=request.param)
    return metric, points, DiskGraph.open(tmp_path / "disk")


def test_results_agree_with_an_exact_search(on_disk, tmp_path: Path) -> None:
    metric, points, disk = on_disk
    ids, scores = disk.search(QUERIES, 10, list_size=200)
    assert recall(ids, points, QUERIES, metric) >= 0.98
    exact = np.take_along_axis(scores_of(points, QUERIES, metric), ids, 1)
    np.testing.assert_allclose(scores, exact, rtol=1e-4, atol=1e-4)
    file = ArrayFile(tmp_path / "disk", "disk graph", 1)
    codebooks = file.array("centres").nbytes if "centres" in file else 0
    assert disk.memory <= points.nbytes / 8 + codebooks
    assert (len(disk), disk.rows, disk.dimension, disk.metric) == (3000, 3000, 72, metric)


def test_recall_does_not_depend_on_beam_width_and_threads(on_disk) -> None:
    metric, points, disk = on_disk
    for beam in (1, 8):
        ids, _ = disk.search(QUERIES, 10, list_size=200, beam_width=beam, threads=2)
        assert recall(ids, points, QUERIES, metric) >= 0.98


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.004])
def test_recall_holds_under_a_filter(on_disk, share: float) -> None:
    metric, points, disk = on_disk
    keep = np.zeros(len(points), bool)
    keep[np.random.default_rng(2).permutation(len(points))[: int(share * len(points))]] = True
    ids, _ = disk.search(QUERIES, 10, mask=keep, list_size=100)
    assert keep[ids].all()
    assert recall(ids, points, QUERIES, metric, keep) >= 0.95


def test_deleted_rows_stay_deleted(tmp_path: Path) -> None:
    points = clusters(300, 20)
    memory = Graph.build(points)
    memory.delete(np.arange(0, 300, 3))
    DiskGraph.write(tmp_path / "disk", memory)
    disk = DiskGraph.open(tmp_path / "disk")
    ids, _ = disk.search(points[:5], 300)
    assert (len(disk), disk.rows) == (200, 300)
    for row in ids:
        assert set(row.tolist()) == {i for i in range(300) if i % 3} | {-1}


@pytest.mark.parametrize("codes", ["pq", "rabitq"])
@pytest.mark.parametrize(("rows", "dimension"), [(0, 4), (1, 2), (3, 2), (40, 4096), (300, 33)])
def test_odd_sizes(tmp_path: Path, codes: str, rows: int, dimension: int) -> None:
    points = clusters(rows, dimension)
    DiskGraph.write(tmp_path / "disk", points, codes=codes, metric="l2")
    disk = DiskGraph.open(tmp_path / "disk", verify=True)
    ids, _ = disk.search(np.ones((2, dimension), np.float32), rows + 1)
    for row in ids:
        assert sorted(row) == [-1, *range(rows)]


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    points = clusters(500, 40)
    for name, threads in (("a", 1), ("b", 3)):
        DiskGraph.write(tmp_path / name, points, seed=4, threads=threads)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_damaged_page_is_reported_when_it_is_read(tmp_path: Path) -> None:
    points = clusters(400, 64)
    path = tmp_path / "disk"
    DiskGraph.write(path, points)
    place = ArrayFile(path, "disk graph", 1).place("pages")
    data = bytearray(path.read_bytes())
    data[place + 3 * 4096 + 100] ^= 4
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="page 3 does not match its checksum"):
        DiskGraph.open(path).search(points, 400)
    with pytest.raises(CheckpointError, match="its pages, bytes"):
        DiskGraph.open(path, verify=True)
    DiskGraph.open(path)  # the arrays in memory are not damaged
    data[4096 * 2 + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged: its"):
        DiskGraph.open(path)


def test_bad_input_is_refused(tmp_path: Path) -> None:
    points = clusters(50, 6)
    with pytest.raises(ConfigError, match="pq, rabitq"):
        DiskGraph.write(tmp_path / "x", points, codes="bits")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot write"):
        DiskGraph.write(tmp_path / "missing" / "x", points)
    DiskGraph.write(tmp_path / "x", points)
    disk = DiskGraph.open(tmp_path / "x")
    with pytest.raises(InputError, match="beam_width 0"):
        disk.search(points, 1, beam_width=0)
    with pytest.raises(InputError, match="5 dimensions, the index has 6"):
        disk.search(points[:, :5], 1)
    with pytest.raises(InputError, match="the mask is"):
        disk.search(points, 1, mask=np.ones(3, bool))
