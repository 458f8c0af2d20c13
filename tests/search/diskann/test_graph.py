"""The graph in memory against exact search: built, changed, merged and saved."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idiolect.errors import ConfigError, InputError
from idiolect.search.diskann import Graph
from idiolect.search.diskann import graph as graph_module
from idiolect.search.diskann.filtered_search import prefers_graph
from idiolect.search.diskann.row_mask import RowMask
from search.diskann.truth import clusters, recall, scores_of

METRICS = ("cosine", "inner", "l2")


@pytest.fixture(scope="module", params=METRICS)
def built(request: pytest.FixtureRequest):
    points = clusters(4000, 48, lengths=0.3)
    return request.param, points, Graph.build(points, metric=request.param, degree=32, list_size=64)


QUERIES = clusters(100, 48, seed=1)


def test_results_agree_with_an_exact_search(built) -> None:
    metric, points, graph = built
    ids, scores = graph.search(QUERIES, 10)
    assert ids.dtype == np.int64
    assert scores.dtype == np.float32
    assert recall(ids, points, QUERIES, metric) >= 0.99
    exact = np.take_along_axis(scores_of(points, QUERIES, metric), ids, 1)
    np.testing.assert_allclose(scores, exact, rtol=1e-4, atol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_one_query_is_a_batch_of_one(built) -> None:
    _, _, graph = built
    together, scores = graph.search(QUERIES[:20], 5)
    for i in range(20):
        one, score = graph.search(QUERIES[i], 5)
        np.testing.assert_array_equal(one[0], together[i])
        np.testing.assert_array_equal(score[0], scores[i])


def test_queries_may_have_any_memory_layout(built) -> None:
    _, _, graph = built
    expected, _ = graph.search(QUERIES, 5)
    read_only = QUERIES.copy()
    read_only.setflags(write=False)
    strided = np.repeat(QUERIES, 2, axis=1)[:, ::2]
    doubles = QUERIES.astype(np.float64)
    for queries in (read_only, strided, np.asfortranarray(QUERIES), doubles, QUERIES.tolist()):
        np.testing.assert_array_equal(graph.search(queries, 5)[0], expected)


def test_a_larger_search_list_has_better_recall(built) -> None:
    metric, points, graph = built
    narrow, wide = (
        recall(graph.search(QUERIES, 10, list_size=w)[0], points, QUERIES, metric)
        for w in (10, 100)
    )
    assert narrow < wide
    assert wide >= 0.99


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
def test_recall_holds_under_a_filter(built, share: float) -> None:
    metric, points, graph = built
    keep = np.zeros(len(points), bool)
    count = max(10, int(share * len(points)))
    keep[np.random.default_rng(2).permutation(len(points))[:count]] = True
    ids, _ = graph.search(QUERIES, 10, mask=keep)
    assert keep[ids].all()
    assert recall(ids, points, QUERIES, metric, keep) >= 0.95


def test_recall_holds_under_a_filter_in_the_graph(built, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row of the mask is found by a scan."""
    metric, points, graph = built
    keep = np.random.default_rng(2).random(len(points)) < 0.6
    monkeypatch.setattr(graph_module, "prefers_graph", lambda *_: True)
    monkeypatch.setattr(graph_module, "scan_masked", None)
    ids, _ = graph.search(QUERIES, 10, mask=keep, list_size=30, threads=1)
    assert keep[ids].all()
    assert recall(ids, points, QUERIES, metric, keep) >= 0.9


def test_a_filter_is_scanned_once_that_costs_less_than_the_graph() -> None:
    assert prefers_graph(128, 64, kept=50_000, rows=100_000)
    assert not prefers_graph(128, 64, kept=10_000, rows=100_000)
    assert prefers_graph(128, 64, kept=100_000, rows=1_000_000)


def test_a_mask_of_rows_is_checked_against_deletions() -> None:
    """A mask that searches share stays as it is, and deleted rows are not found with it."""
    points = clusters(300, 16)
    graph = Graph.build(points, degree=16, list_size=32)
    shared = RowMask(np.arange(300) % 2 == 0)
    assert graph.search(points[4], 1, mask=shared)[0][0, 0] == 4
    graph.delete([4])
    assert graph.search(points[4], 1, mask=shared)[0][0, 0] != 4
    assert shared.count == 150


@pytest.mark.parametrize("in_graph", [False, True])
def test_recall_holds_if_the_kept_rows_are_far_away(
    built, monkeypatch: pytest.MonkeyPatch, in_graph: bool
) -> None:
    """Queries are far from the rows of the mask, so the search must cross rows outside it."""
    metric, points, graph = built
    monkeypatch.setattr(graph_module, "prefers_graph", lambda *_: in_graph)
    side = points @ points.mean(0)
    keep = side < np.quantile(side, 0.2)
    queries = QUERIES[np.argsort(-(QUERIES @ points.mean(0)))[:40]]
    ids, _ = graph.search(queries, 10, mask=keep)
    assert recall(ids, points, queries, metric, keep) >= 0.95


@pytest.mark.parametrize("metric", METRICS)
def test_recall_stays_after_deletes_and_inserts(metric: str) -> None:
    points = clusters(3000, 32, lengths=0.2)
    queries = clusters(100, 32, seed=1)
    graph = Graph.build(points, metric=metric, degree=32, list_size=64)
    before = recall(graph.search(queries, 10, list_size=40)[0], points, queries, metric)
    gone = np.random.default_rng(3).permutation(3000)[:900]
    alive = np.ones(3000, bool)
    alive[gone] = False
    graph.delete(gone)
    assert (len(graph), graph.deleted, graph.rows) == (2100, 900, 3000)
    ids, _ = graph.search(queries, 10, list_size=40)
    assert recall(ids, points, queries, metric, alive) >= before - 0.01
    graph.merge()
    assert (len(graph), graph.deleted, graph.rows) == (2100, 0, 3000)
    ids, _ = graph.search(queries, 10, list_size=40)
    assert recall(ids, points, queries, metric, alive) >= before - 0.01
    places = np.concatenate([graph.insert(points[part]) for part in np.split(gone, 9)])
    assert sorted(places) == sorted(gone), "freed rows are used again"
    now = points.copy()
    now[places] = points[gone]
    ids, _ = graph.search(queries, 10, list_size=40)
    assert recall(ids, now, queries, metric) >= before - 0.01


def test_a_graph_grown_by_insertion_is_as_good() -> None:
    points, queries = clusters(3000, 32), clusters(100, 32, seed=1)
    graph = Graph.build(points[:0], degree=32, list_size=64)
    np.testing.assert_array_equal(graph.insert(points[:1]), [0])
    for start in range(1, 3000, 500):
        graph.insert(points[start : start + 500])
    assert len(graph) == 3000
    assert recall(graph.search(queries, 10)[0], points, queries, "cosine") >= 0.99


def test_deleted_rows_are_not_found_and_inserted_rows_are() -> None:
    points = clusters(500, 16)
    graph = Graph.build(points, metric="l2")
    graph.delete([3, 4])
    assert not {3, 4} & set(graph.search(points[3], 500)[0].ravel().tolist())
    new = graph.insert(points[3] + 0.001)
    assert graph.search(points[3], 1)[0][0, 0] == new[0] == 500
    np.testing.assert_array_equal(graph.vectors(new), points[3:4] + np.float32(0.001))
    graph.delete(np.setdiff1d(np.arange(501), [3, 4]))
    assert len(graph) == 0
    assert (graph.search(points[:2], 3)[0] == -1).all()
    graph.merge()
    assert graph.insert(points[:2]).tolist() == [0, 1]
    assert graph.search(points[1], 1)[0][0, 0] == 1


def test_the_graph_depends_on_the_seed_and_not_on_the_threads(tmp_path: Path) -> None:
    points = clusters(1500, 24)
    files = []
    for i, (seed, threads) in enumerate([(0, 1), (0, 3), (1, 1)]):
        graph = Graph.build(points, degree=16, list_size=32, seed=seed, threads=threads)
        graph.delete(np.arange(0, 300, 2))
        graph.merge(threads=threads)
        graph.insert(points[:200] * 2, threads=threads)
        graph.save(tmp_path / str(i))
        files.append(np.array(graph.snapshot().neighbours))
    np.testing.assert_array_equal(files[0], files[1])
    assert (files[0] != files[2]).any()
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 11])
def test_few_rows(metric: str, rows: int) -> None:
    points = clusters(rows, 5)
    graph = Graph.build(points, metric=metric)
    assert len(graph) == rows
    ids, scores = graph.search(np.ones((2, 5), np.float32), 12)
    assert ids.shape == scores.shape == (2, 12)
    for row in ids:
        assert sorted(row[:rows]) == list(range(rows))
    assert (ids[:, rows:] == -1).all()
    assert (scores[:, rows:] == -np.inf).all()


@pytest.mark.parametrize("dimension", [2, 3, 17, 200, 4096])
@pytest.mark.parametrize("metric", METRICS)
def test_any_dimension(dimension: int, metric: str) -> None:
    points, queries = clusters(600, dimension), clusters(20, dimension, seed=1)
    graph = Graph.build(points, metric=metric, degree=24, list_size=48)
    assert recall(graph.search(queries, 10)[0], points, queries, metric) >= 0.98


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_crowded_plane(metric: str) -> None:
    """Neighbours are much closer than the step of a short code."""
    points = np.random.default_rng(0).normal(size=(8000, 2)).astype(np.float32)
    graph = Graph.build(points, metric=metric, degree=16, list_size=40)
    assert recall(graph.search(points[:100], 10)[0], points, points[:100], metric) >= 0.98


def test_duplicates_are_all_found() -> None:
    points = np.repeat(clusters(20, 8), 30, axis=0)
    ids, scores = Graph.build(points, metric="l2").search(points[::30], 30)
    for i, row in enumerate(ids):
        assert set(row // 30) == {i}
    np.testing.assert_array_equal(scores, 0)


def test_invalid_input_is_rejected_and_changes_nothing() -> None:
    points = clusters(50, 6)
    bad = points.copy()
    bad[7, 2] = np.nan
    for vectors, message in [
        (bad, "vector 7 has values that are not finite"),
        (np.where(np.isnan(bad), np.inf, bad), "vector 7"),
        (np.full((1, 6), 1e30, np.float32), "too large"),
        (np.zeros((1, 6), np.float32), "vector 0 is zero"),
        (points[0], "1 axes"),
    ]:
        with pytest.raises(InputError, match=message):
            Graph.build(vectors)
    graph = Graph.build(points)
    for wrong, message in [
        (bad, "vector 7"),
        (points[:, :5], "5 dimensions, the index has 6"),
        (np.zeros((2, 6)), "vector 0 is zero"),
        (np.vstack([points[:3], np.full(6, 1e-30)]), "vector 3 is zero"),
        (np.full((1, 6), 1e30), "vector 0 has values that are not finite or too large"),
    ]:
        with pytest.raises(InputError, match=message):
            graph.insert(wrong)
        with pytest.raises(InputError, match=message):
            graph.search(wrong, 3)
    for gone, message in [([50], "no row 50"), ([-1], "no row -1"), ([2, 99], "no row 99")]:
        with pytest.raises(InputError, match=message):
            graph.delete(gone)
    assert (len(graph), graph.rows, graph.deleted) == (50, 50, 0)
    for keep in (np.ones(49, bool), np.ones(50)):
        with pytest.raises(InputError, match="the mask is"):
            graph.search(points, 3, mask=keep)
    with pytest.raises(InputError, match="k is 0"):
        graph.search(points, 0)
    with pytest.raises(ConfigError, match="one of cosine, inner, l2"):
        Graph.build(points, metric="dot")  # type: ignore[arg-type]
    Graph.build(np.zeros((3, 6), np.float32), metric="l2")


def test_searches_run_during_deletions_insertions_and_merges() -> None:
    points = clusters(2000, 32)
    graph = Graph.build(points[:1000], degree=16, list_size=32)
    wrong: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            ids, _ = graph.search(points[:50], 1, threads=1)
            missed = int((ids[:, 0] != np.arange(50)).sum())
            if missed > 1:
                wrong.append(f"{missed} of 50 rows did not find themselves")

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for start in range(1000, 2000, 200):
            graph.delete(np.arange(start - 900, start - 800))
            graph.insert(points[start : start + 200])
            graph.merge()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not wrong, wrong[:3]


def test_a_search_during_a_merge_does_not_return_deleted_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The merge runs after a search has taken the old rows and before it reads them."""
    points = clusters(200, 16)
    graph = Graph.build(points, degree=16, list_size=32)
    graph.delete([7])
    prepare = graph_module.prepare_queries

    def merge_meanwhile(*arguments: Any) -> Any:
        graph.merge()
        return prepare(*arguments)

    monkeypatch.setattr(graph_module, "prepare_queries", merge_meanwhile)
    ids, _ = graph.search(points[7], 10)
    assert graph.deleted == 0
    assert 7 not in ids


def test_a_masked_search_during_an_insertion_stays_inside_its_mask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """New rows are beyond the end of the mask, which must not be read there."""
    points = clusters(1100, 16)
    graph = Graph.build(points[:900], degree=16, list_size=32)
    graph.insert(points[900:1000])
    capacity = len(graph.snapshot().alive)
    assert capacity >= 1100, "the next rows go into the same arrays"

    def insert_meanwhile(mask: Any, alive: Any) -> Any:
        graph.insert(points[1000:])
        return RowMask(np.ones(capacity, bool)[: len(alive)])

    monkeypatch.setattr(graph_module, "check_mask", insert_meanwhile)
    ids, _ = graph.search(points[1000:], 5, mask=np.ones(1000, bool), list_size=16, threads=1)
    assert ids.max() < 1000
