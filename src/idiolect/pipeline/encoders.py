"""The stages from a language model to something that can be searched: `tune` and `index`."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import Pair, PairTable
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.encoding.tune import tune as train_on_pairs
from idiolect.encoding.tune import tune_on_text, tuning_plan
from idiolect.errors import InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.stage_metrics import IndexMetrics, IndexPoint, TuneMetrics
from idiolect.pipeline.stages import SAVE_EVERY, Work, is_encoder, load_encoder, summed_up
from idiolect.search.diskann.graph import Graph
from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.text.files import write_atomic

__all__ = ["graph_curve", "index", "open_index", "tune", "without_tests"]

_WIDTHS = (10, 20, 40, 80, 160)
_ASKED = 200
_K = 10
_KEPT, _MOST_KEPT = "kept.jsonl", 200
"""Queries that are not trained on: on these it is chosen how hybrid search joins."""
_ENCODER_RATE, _MODEL_RATE = 2e-5, 5e-4


def open_index(run: Path) -> Index:
    """Open the index of a run, with the encoder that made it.

    Raises:
        InputError: The run has none.
    """
    stages = run / "stages"
    if not (stages / "index" / "index").is_dir():
        raise InputError(f"{run} has no finished index", hint="idiolect run goes on with it")
    return Index.open(stages / "index" / "index", Encoder.load(stages / "tune" / "model"))


def tune(work: Work) -> TuneMetrics:
    """Teach the encoder which texts belong together.

    Without pairs, titles and texts of the items are taken for pairs; without titles, it learns from
    the texts alone.
    """
    settings, data = work.config.tune, work.data
    encoder, published = load_encoder(work, work.model), is_encoder(work.base)
    plan = tuning_plan(
        encoder,
        batch=settings.batch,
        learning_rate=settings.learning_rate or (_ENCODER_RATE if published else _MODEL_RATE),
        length=settings.length or encoder.length,
        save_every=SAVE_EVERY,
        seed=work.config.seed,
    )
    given = data.pairs() if data.settings.pairs else data.title_pairs()
    pairs, left_out = without_tests(given, data)
    note = ""
    if not data.settings.pairs:
        what = "titles and texts of the items" if pairs else "the items' texts alone"
        note = f"there are no pairs, so it was tuned on {what}"
    elif not pairs:
        raise InputError(
            f"all {left_out} pairs of {data.settings.pairs} are of the tests",
            hint="give pairs whose queries are not tested",
        )
    pairs, kept = _kept_apart(pairs, data, work.config.seed)
    lines = [json.dumps(question, ensure_ascii=False) + "\n" for question in kept.items()]
    write_atomic(work.folder / _KEPT, "".join(lines).encode())
    if pairs:
        train_on_pairs(
            encoder,
            pairs,
            out=work.folder,
            dimensions=settings.dimensions,
            whiten=not published,
            steps=settings.steps,
            plan=plan,
        )
    else:
        dropout = encoder.model.network.config.dropout
        tune_on_text(
            encoder,
            data.texts.values(),
            out=work.folder,
            objective="simcse" if dropout else "tsdae",
            whiten=not published,
            steps=settings.steps,
            plan=plan,
        )
    curve = summed_up(work.folder)
    return {
        "pairs": len(PairTable.of(pairs)) if pairs else 0,
        "supervised": not note,
        "note": note,
        "steps": curve["steps"],
        "loss_first": curve["loss_first"],
        "loss_last": curve["loss_last"],
        "left_out": left_out,
        "kept_apart": len(kept),
    }


def index(work: Work) -> IndexMetrics:
    """Build the index, and measure what its graph finds, and how fast."""
    path = work.folder / "index"
    encoder = Encoder.load(work.model)
    items, counts = work.data.items, EncodingCounts()
    with Index.build(
        path, encoder, _told(items, work, encoder, counts), source=work.model
    ) as built:
        rows = [item.vector for item in built.store.items(vectors=True) if item.vector is not None]
        lines = (Path(work.model).parent / _KEPT).read_text(encoding="utf-8").splitlines()
        answers = dict(json.loads(line) for line in lines)
        meaning = built.weigh(answers)[0] if answers else None
    vectors = np.stack(rows)
    exact, curve = graph_curve(vectors)
    return {
        "items": len(vectors),
        "cut": counts.truncated,
        "dimensions": vectors.shape[1],
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "meaning": meaning,
        "exact_queries_per_second": exact,
        "curve": curve,
    }


def without_tests(pairs: list[Pair], data: Data) -> tuple[list[Pair], int]:
    """Leave out pairs that would give away what the tests ask, however they are written."""
    asked = {_plain(text) for text in data.queries.values()}
    texts = {name: _plain(text) for name, text in data.texts.items()}
    alike = {
        (texts[one], texts[other])
        for one, grades in data.similar.items()
        for other in grades
        if one in texts and other in texts
    }
    kept = [
        pair
        for pair in pairs
        if (query := _plain(pair.query)) not in asked
        and (query, document := _plain(pair.document)) not in alike
        and (document, query) not in alike
    ]
    return kept, len(pairs) - len(kept)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _kept_apart(
    pairs: list[Pair], data: Data, seed: int
) -> tuple[list[Pair], dict[str, list[str]]]:
    """Keep some queries out of training, with the items that answer them.

    Only pairs of a query with an item can be, not those of two items.
    """
    ids = {text: name for name, text in data.texts.items()}
    asked = sorted({p.query for p in pairs if p.query not in ids and p.document in ids})
    chosen = set(random.Random(seed).sample(asked, min(_MOST_KEPT, len(asked) // 10)))
    kept: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.query in chosen and pair.document in ids:
            kept.setdefault(pair.query, []).append(ids[pair.document])
    return [pair for pair in pairs if pair.query not in chosen], kept


def _told(
    items: Mapping[str, Item], work: Work, encoder: Encoder, counts: EncodingCounts
) -> Iterator[Item]:
    for number, item in enumerate(items.values(), start=1):
        encoder.reader.read([item.text], "document", counts)
        yield item
        work.tell(number, len(items), "items")


def graph_curve(vectors: NDArray[np.float32]) -> tuple[float, list[IndexPoint]]:
    """Ask a graph of the vectors for the neighbours of some of them, at several widths."""
    graph = Graph.build(vectors)
    numbers = range(0, len(vectors), max(1, len(vectors) // _ASKED))
    asked = vectors[numbers]
    true, seconds = _timed(lambda query: np.argsort(-(vectors @ query))[: _K + 1], asked)
    curve: list[IndexPoint] = []
    for width in _WIDTHS:
        found, spent = _timed(partial(_ask, graph, width), asked)
        hits = [
            len((set(a) & set(b)) - {own}) / max(1, len(a) - 1)  # to find itself says nothing
            for own, a, b in zip(numbers, true, found, strict=True)
        ]
        curve.append(
            {
                "width": width,
                "recall": float(np.mean(hits)),
                "queries_per_second": len(asked) / spent,
            }
        )
    return len(asked) / seconds, curve


def _ask(graph: Graph, width: int, query: NDArray[np.float32]) -> NDArray[np.int64]:
    found: NDArray[np.int64] = graph.search(query[None], _K + 1, list_size=width, threads=1)[0][0]
    return found


def _timed(
    search: Callable[[NDArray[np.float32]], NDArray[np.int64]], queries: NDArray[np.float32]
) -> tuple[list[list[int]], float]:
    """Ask one query at a time, after one that warms up; return the answers and the seconds."""
    search(queries[0])
    began = time.perf_counter()
    found = [search(query).tolist() for query in queries]
    return found, time.perf_counter() - began
