"""The disk graph against exact search, and its detection of damaged pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.search.diskann import DiskGraph, Graph, product_codes
from idiolect.search.diskann.array_file import ArrayFile
from idiolect.search.diskann.disk import disk_graph
from idiolect.search.diskann.disk.disk_file import DISK_KIND, DISK_VERSION
from idiolect.search.diskann.disk.disk_update import update_disk_graph
from idiolect.search.diskann.disk.flat_vectors import FlatVectors
from idiolect.search.diskann.disk.partitioned_build import _assign, build_partitioned
from idiolect.search.diskann.product_codes import ProductCodes
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
    file = ArrayFile(tmp_path / "disk", DISK_KIND, DISK_VERSION)
    codebooks = sum(file.array(name).nbytes for name in ("centres", "rotation") if name in file)
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


def test_recall_holds_under_a_filter_far_from_the_queries(
    on_disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search in the graph reads too few rows of the mask, so their codes are scanned."""
    metric, points, disk = on_disk
    side = points @ points.mean(0)
    keep = side < np.quantile(side, 0.2)
    queries = QUERIES[np.argsort(-(QUERIES @ points.mean(0)))[:40]]
    monkeypatch.setattr(disk_graph, "_PAGE_COST", 0)
    ids, _ = disk.search(queries, 10, mask=keep, list_size=60)
    assert keep[ids].all()
    assert recall(ids, points, queries, metric, keep) >= 0.95


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


def test_a_file_from_before_the_rotation_of_codes_is_read_and_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = clusters(2000, 72)
    arrays = ProductCodes.arrays

    def without_rotation(codebooks: ProductCodes, codes: np.ndarray) -> dict:
        return {name: a for name, a in arrays(codebooks, codes).items() if name != "rotation"}

    with monkeypatch.context() as old:
        old.setattr(
            product_codes, "_balanced_rotation", lambda s, p, w: np.eye(72, p * w, dtype="f")
        )
        old.setattr(ProductCodes, "arrays", without_rotation)
        DiskGraph.write(tmp_path / "old", points[:1500])
    assert "rotation" not in ArrayFile(tmp_path / "old", DISK_KIND, DISK_VERSION)
    before = DiskGraph.open(tmp_path / "old")
    assert recall(before.search(QUERIES, 10)[0], points[:1500], QUERIES, "cosine") >= 0.98
    update_disk_graph(tmp_path / "new", before, [], points[1500:])
    after = DiskGraph.open(tmp_path / "new")
    assert recall(after.search(QUERIES, 10)[0], points, QUERIES, "cosine") >= 0.98


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    points = clusters(500, 40)
    for name, threads in (("a", 1), ("b", 3)):
        DiskGraph.write(tmp_path / name, points, seed=4, threads=threads)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_damaged_page_is_reported_when_it_is_read(tmp_path: Path) -> None:
    points = clusters(400, 64)
    path = tmp_path / "disk"
    DiskGraph.write(path, points)
    place = ArrayFile(path, DISK_KIND, DISK_VERSION).place("pages")
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


def _vector_file(path: Path, points: np.ndarray) -> FlatVectors:
    parts = (points[start : start + 100] for start in range(0, len(points), 100))
    return FlatVectors.create(path, points.shape[1], parts)


@pytest.mark.parametrize("metric", ["cosine", "inner", "l2"])
def test_a_graph_is_built_in_shards(tmp_path: Path, metric: str) -> None:
    points = clusters(3000, 40)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    file = _vector_file(tmp_path / "vectors", points)
    np.testing.assert_array_equal(file.gather(np.array([7, 2999]))[:, :40], points[[7, 2999]])
    build_partitioned(tmp_path / "disk", file, metric=metric, max_rows=700, degree=32, list_size=64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "vectors"]
    disk = DiskGraph.open(tmp_path / "disk", verify=True)
    queries = clusters(60, 40, seed=1)
    ids, _ = disk.search(queries, 10, list_size=200)
    assert recall(ids, points, queries, metric) >= 0.98
    _, edges = disk.nodes(np.arange(3000))
    assert edges.max() < 3000
    assert (np.sort(edges)[:, :-1] != np.sort(edges)[:, 1:])[np.sort(edges)[:, 1:] >= 0].all()


def test_vectors_are_read_from_a_numpy_file(tmp_path: Path) -> None:
    points = clusters(300, 32)
    np.save(tmp_path / "points.npy", points)
    offset = np.load(tmp_path / "points.npy", mmap_mode="r").offset
    file = FlatVectors(tmp_path / "points.npy", 32, offset=offset)
    assert file.rows == 300
    np.testing.assert_array_equal(file.read(7, 250), points[7:250])
    with pytest.raises(InputError, match="cannot read"):
        file.read(299, 301)


def test_shards_overlap_and_have_room_for_equal_vectors() -> None:
    space = np.full(4, 30)
    assigned = np.empty((50, 2), np.int64)
    _assign(np.zeros((50, 4), np.float32), space, assigned)
    assert (assigned[:, 0] != assigned[:, 1]).all()
    assert assigned.min() >= 0
    assert np.bincount(assigned.ravel()).max() <= 30


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_updates_keep_recall_and_order(tmp_path: Path, metric: str) -> None:
    """In each round a third of the rows is replaced, and the entry is among them."""
    points = clusters(4000, 40)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    now, path = np.arange(1500), tmp_path / "0"
    build_partitioned(
        path, _vector_file(tmp_path / "vectors", points[now]), metric=metric, max_rows=2000,
        degree=32, list_size=64,
    )  # fmt: skip
    rng, queries = np.random.default_rng(3), clusters(60, 40, seed=1)
    for round_ in range(1, 6):
        old = DiskGraph.open(path)
        deleted = np.unique([old.file.entry, *rng.choice(len(now), 500, replace=False)])
        new = np.arange(1000 + 500 * round_, 1500 + 500 * round_)
        path = tmp_path / str(round_)
        update_disk_graph(
            path, old, deleted, 3 * points[new] if metric == "cosine" else points[new]
        )
        now = np.concatenate([np.delete(now, deleted), new])
        disk = DiskGraph.open(path, verify=True)
        assert (len(disk), disk.rows) == (len(now), len(now))
        vectors, edges = disk.nodes(np.arange(len(now)))
        np.testing.assert_allclose(vectors[:, :40], points[now], atol=1e-6)
        assert edges.max() < len(now)
        assert (edges != np.arange(len(now))[:, None]).all()
        ids, _ = disk.search(queries, 10, list_size=100)
        assert recall(ids, points[now], queries, metric) >= 0.98
    update_disk_graph(tmp_path / "same", disk, np.array([], int), np.empty((0, 40)))
    assert DiskGraph.open(tmp_path / "same").rows == len(now)
