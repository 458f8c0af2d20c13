"""The stage `index`: choose an encoder, build the index, and measure its vector graph."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, InputError
from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import SharedOutput, Stage, Work
from idiolect.pipeline.stages.tune_stage import held_out_queries
from idiolect.pipeline.systems import MeasuredSystem
from idiolect.search.index_location import RUN_INDEX
from idiolect.text.files import read_json, write_atomic

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.pipeline.encoder_choice import CandidateFigure, IndexCandidate
    from idiolect.search.diskann.graph import Graph
    from idiolect.search.index import Index

__all__ = [
    "INDEX",
    "STAGE",
    "IndexMetrics",
    "IndexPoint",
    "graph_curve",
    "index",
    "index_encoder",
    "index_system",
    "open_index",
]

INDEX = RUN_INDEX.name
"""Name of the index in the stage's folder."""
_CHOSEN = "chosen.json"
_ENCODERS = {"tuning": "tune", "plain.tuning": "plain.tune", "base": "index"}
"""The stage whose folder contains a system's encoder. This stage saves the base's."""
_WIDTHS = (10, 20, 40, 80, 160)
_QUERIES = 200
_NEIGHBOURS = 10


class IndexPoint(TypedDict):
    """Recall and speed of the graph at one search width."""

    width: int
    recall: float
    """Share of the ten nearest items that are found, compared with exact search."""
    queries_per_second: float
    """Speed with one query at a time, on one thread."""


class IndexMetrics(TypedDict):
    """Metrics of the stage."""

    items: int
    encoder: str
    """The system whose encoder the index uses: tuning, plain.tuning or base."""
    candidates: list[CandidateFigure]
    """Results of the encoders on held-out queries; empty without such queries, in which case the
    encoder with new tokens is used."""
    cut: int
    """Items longer than the encoder's limit; only their beginning is encoded."""
    dimensions: int
    bytes: int
    """Size on disk."""
    meaning: float
    """Weight of vectors in hybrid search, fitted to held-out queries if there are any; the rest is
    the weight of lexical search."""
    exact_queries_per_second: float
    """Speed of exact search by a product with all vectors, for comparison."""
    curve: list[IndexPoint]
    notes: list[str]
    """Notes for readers."""


def open_index(run: Path, counts: EncodingCounts | None = None) -> Index:
    """Open the index of a run, with the encoder that it was built with.

    Args:
        run: The run's folder.
        counts: Updated by each query. By default, truncated queries are logged.

    Raises:
        InputError: The run has no index.
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.search.index import Index

    if not (run / RUN_INDEX).is_dir():
        raise InputError(f"{run} has no finished index", hint="resume it with idiolect run")
    return Index.open(run, Encoder.load(index_encoder(run)), encoding_counts=counts)


def index_system(run: Path) -> str:
    """Return the system whose encoder a run's index uses: tuning, plain.tuning or base."""
    system = read_json(run / "stages" / "index" / _CHOSEN)["system"]
    if system not in _ENCODERS:
        raise CheckpointError(
            f"{run}: the index uses an unknown system: {system}", hint="run it again"
        )
    return str(system)


def index_encoder(run: Path) -> Path:
    """Return the folder of the encoder that a run's index uses."""
    return _encoder_folder(run, index_system(run))


def _encoder_folder(run: Path, system: str) -> Path:
    return run / "stages" / _ENCODERS[system] / "model"


def index(work: Work[SettingsTable]) -> IndexMetrics:
    """Build the index with the best encoder, and fit hybrid search to held-out queries."""
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.pipeline.encoder_choice import best_of, candidates

    path, answers = work.folder / INDEX, held_out_queries(Path(work.model).parent)
    found = candidates(work)
    chosen, counts = found[0], EncodingCounts()
    figures: list[CandidateFigure] = []
    encoder = chosen.load()
    built = _build(work, chosen, encoder, counts)
    if answers:
        known = {chosen.name: _vectors(built, work.data.texts, encoder.dimensions)}
        chosen, figures = best_of(work, found, answers, known)
        if chosen is not found[0]:
            built.close()
            shutil.rmtree(path)
            encoder, counts = chosen.load(), EncodingCounts()
            built = _build(work, chosen, encoder, counts)
    if chosen.name == "base":
        encoder.save(work.folder / "model")
    write_atomic(work.folder / _CHOSEN, json.dumps({"system": chosen.name}).encode())
    with built:
        cut = counts.truncated  # before queries are counted
        rows = [item.vector for item in built.store.items(vectors=True) if item.vector is not None]
        meaning = built.fit_fusion(answers)[0] if answers else built.hybrid_weight.dense
    vectors = np.stack(rows)
    exact, curve = graph_curve(vectors)
    return {
        "items": len(vectors),
        "encoder": chosen.name,
        "candidates": figures,
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


def _build(
    work: Work[SettingsTable], chosen: IndexCandidate, encoder: Encoder, counts: EncodingCounts
) -> Index:
    """Build the index. Invalid metadata is skipped and logged: training took hours before this."""
    from idiolect.search.index import Index
    from idiolect.training.progress import track

    return Index.build(
        work.folder / INDEX,
        encoder,
        track(work.data.items.values(), "items", len(work.data.items)),
        skip_invalid_metadata=True,
        source=str(_encoder_folder(work.folder.parents[1].resolve(), chosen.name)),
        encoding_counts=counts,
    )


def _vectors(index: Index, names: Iterable[str], dimensions: int) -> NDArray[np.float32]:
    """Return the vectors of items in order; zeros for an item without one."""
    found = {item.id: item.vector for item in index.store.items(vectors=True)}
    empty = np.zeros(dimensions, np.float32)
    return np.stack([empty if (v := found.get(name)) is None else v for name in names])


def _damage(folder: Path) -> str:
    """Return a description of an index's damage; rebuild all that derives from its ledger."""
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
    """Return a text that changes with each write to an index, including snapshots."""
    from idiolect.errors import IdiolectError
    from idiolect.search.store.store import Store

    try:
        with Store.open(folder, background=False) as store:
            settings, snapshots = store.settings, store.describe().snapshots
            return ":".join((settings["epoch"], str(settings["changes"]), *snapshots))
    except IdiolectError:
        return ""


def graph_curve(vectors: NDArray[np.float32]) -> tuple[float, list[IndexPoint]]:
    """Measure the vector graph at several search widths, with some vectors as queries.

    Returns:
        Queries per second of exact search, and the results by search width.
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
    """Search one query at a time, after a warm-up; return the results and the seconds."""
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
    shared=("encoder",),
    model_from="tune",
    after_if_run=("plain.tune",),
    shares=SharedOutput(folder=INDEX, find_damage=_damage, state=_state),
    systems=(
        MeasuredSystem(name="words", label="the index, words only", by="lexical"),
        MeasuredSystem(name="hybrid", label="hybrid", by="hybrid", against=("bm25", "words")),
    ),
)
