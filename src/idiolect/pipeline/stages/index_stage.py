"""The stage `index`: build the index, and measure the recall and speed of its graph."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import SharedOutput, Stage, Work
from idiolect.pipeline.stages.tune_stage import HELD_OUT_PAIRS
from idiolect.pipeline.systems import MeasuredSystem

if TYPE_CHECKING:
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.search.diskann.graph import Graph
    from idiolect.search.index import Index

__all__ = ["INDEX", "STAGE", "IndexMetrics", "IndexPoint", "graph_curve", "index", "open_index"]

INDEX = "index"
"""The index, in the stage's folder."""
_WIDTHS = (10, 20, 40, 80, 160)
_QUERIES = 200
_NEIGHBOURS = 10


class IndexPoint(TypedDict):
    """Recall and speed of the graph at one search width."""

    width: int
    recall: float
    """Share of the ten nearest items that are found, against exact search."""
    queries_per_second: float
    """One query at a time, on one thread."""


class IndexMetrics(TypedDict):
    """Metrics of the stage."""

    items: int
    cut: int
    """Items longer than the encoder's limit; vector search uses only their beginning."""
    dimensions: int
    bytes: int
    """Size on disk."""
    meaning: float | None
    """Weight of vectors in hybrid search, fitted to held-out queries; words have the rest. None
    without held-out queries."""
    exact_queries_per_second: float
    """Speed of exact search by a product with all vectors, for comparison."""
    curve: list[IndexPoint]
    notes: list[str]
    """Notes for readers."""


def open_index(run: Path, counts: EncodingCounts | None = None) -> Index:
    """Open the index of a run, with the encoder that made it.

    Args:
        run: The run's folder.
        counts: Updated by each query. By default, truncated queries are logged.

    Raises:
        InputError: The run has no index.
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.search.index import Index

    stages = run / "stages"
    if not (stages / "index" / INDEX).is_dir():
        raise InputError(f"{run} has no finished index", hint="resume it with idiolect run")
    encoder = Encoder.load(stages / "tune" / "model")
    return Index.open(stages / "index" / INDEX, encoder, encoding_counts=counts)


def index(work: Work[SettingsTable]) -> IndexMetrics:
    """Build the index, and fit hybrid search to the held-out queries."""
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.search.index import Index
    from idiolect.training.progress import track

    path, counts = work.folder / INDEX, EncodingCounts()
    encoder = Encoder.load(work.model)
    items = track(work.data.items.values(), "items", len(work.data.items))
    options: dict[str, Any] = {"source": work.model, "encoding_counts": counts}
    # Hours of training came before; what is left out is logged.
    with Index.build(path, encoder, items, skip_invalid_metadata=True, **options) as built:
        cut = counts.truncated  # before queries are counted
        rows = [item.vector for item in built.store.items(vectors=True) if item.vector is not None]
        lines = (Path(work.model).parent / HELD_OUT_PAIRS).read_text(encoding="utf-8").splitlines()
        answers = dict(json.loads(line) for line in lines)
        meaning = built.fit_fusion(answers)[0] if answers else None
    vectors = np.stack(rows)
    exact, curve = graph_curve(vectors)
    return {
        "items": len(vectors),
        "cut": cut,
        "dimensions": vectors.shape[1],
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "meaning": meaning,
        "exact_queries_per_second": exact,
        "curve": curve,
        "notes": [
            f"{cut:,} of {len(vectors):,} items are longer than the encoder reads, and vector "
            "search finds them by their beginning only; BM25 reads them whole"
        ]
        if cut
        else [],
    }


def _damage(folder: Path) -> str:
    """Return what is wrong with an index; rebuild what can be derived from its ledger."""
    from idiolect.errors import IdiolectError
    from idiolect.search.store.store import Store
    from idiolect.training.progress import notice

    try:
        with Store.open(folder, background=False) as store:
            damage = list(store.verify())
            for one in damage:
                if not one.derived:
                    return f"{one.place}: {one.problem}"
            if damage:
                notice(f"index: {damage[0].problem}; rebuilding it from the ledger")
                store.compact(rebuild=True)
    except IdiolectError as error:
        return error.message
    return ""


def _state(folder: Path) -> str:
    """Return a text that changes with each write to an index, and with its snapshots."""
    from idiolect.errors import IdiolectError
    from idiolect.search.store.store import Store

    try:
        with Store.open(folder, background=False) as store:
            settings, snapshots = store.settings, store.describe().snapshots
            return ":".join((settings["epoch"], str(settings["changes"]), *snapshots))
    except IdiolectError:
        return ""


def graph_curve(vectors: NDArray[np.float32]) -> tuple[float, list[IndexPoint]]:
    """Measure a graph of vectors at several search widths, with some of them as queries.

    Returns:
        Queries per second of exact search, and the points of the graph.
    """
    from idiolect.search.diskann.graph import Graph

    graph = Graph.build(vectors)
    numbers = range(0, len(vectors), max(1, len(vectors) // _QUERIES))
    queries = vectors[numbers]
    true, seconds = _timed(lambda query: np.argsort(-(vectors @ query))[: _NEIGHBOURS + 1], queries)
    curve: list[IndexPoint] = []
    for width in _WIDTHS:
        found, spent = _timed(partial(_search, graph, width), queries)
        hits = [
            len((set(a) & set(b)) - {own}) / max(1, len(a) - 1)  # a query finds itself
            for own, a, b in zip(numbers, true, found, strict=True)
        ]
        curve.append(
            {
                "width": width,
                "recall": float(np.mean(hits)),
                "queries_per_second": len(queries) / spent,
            }
        )
    return len(queries) / seconds, curve


def _search(graph: Graph, width: int, query: NDArray[np.float32]) -> NDArray[np.int64]:
    ids, *_ = graph.search(query[None], _NEIGHBOURS + 1, list_size=width, threads=1)
    found: NDArray[np.int64] = ids[0]
    return found


def _timed(
    search: Callable[[NDArray[np.float32]], NDArray[np.int64]], queries: NDArray[np.float32]
) -> tuple[list[list[int]], float]:
    """Search for one query at a time, after a warm-up; return the answers and the seconds."""
    search(queries[0])
    began = time.perf_counter()
    found = [search(query).tolist() for query in queries]
    return found, time.perf_counter() - began


STAGE = Stage(
    name="index",
    run=index,
    settings=SettingsTable,
    metrics=IndexMetrics,
    inputs=("items",),
    model_from="tune",
    shares=SharedOutput(folder=INDEX, find_damage=_damage, state=_state),
    systems=(
        MeasuredSystem(name="words", label="the index, words only", by="lexical"),
        MeasuredSystem(name="hybrid", label="hybrid", by="hybrid", against=("bm25", "words")),
    ),
)
