"""Recommenders on published rows, all items ranked, beside figures that others published.

    python benchmarks/recommendation.py sequences FILE [EPOCHS FOLDER]
    python benchmarks/recommendation.py amazon FOLDER NAME [ENCODER]
    python benchmarks/recommendation.py texts FOLDER NAME ENCODER ADAPTED
    python benchmarks/recommendation.py systems FOLDER HISTORIES [TARGET [ITEMS [ENCODER]]]
        [epochs=N] [networks=NAME,NAME] [seed=N]
    python benchmarks/recommendation.py serving [graphs] [HISTORIES [EPOCHS FOLDER]]

`sequences`: lines of `user item item …`, such as the 5-core sets of S3-Rec. A user's last event is
the test, the one before it is validation, and neither is trained on. With EPOCHS, SASRec is a part
of the blend; it trains in FOLDER, where a killed run resumes.

`amazon`: NAME.valid.csv.gz, NAME.test.csv.gz and NAME.item.json.gz as MiniOneRec publishes them.
Training histories are those of the validation file, at most ten items each, since the original
training file cannot be had; the blend's weights are chosen on its targets. Cold targets are those
in no training history. Adding the words of titles is tested against the blend without them.
With ENCODER, a folder, its vectors of the titles are a system too, and a part of the blend.

`texts`: the same rows; the vectors of the titles by an encoder and by one that was adapted to the
domain, each alone and in a blend with what users did, on all, warm and cold targets, with a paired
test for each.

`systems`: every system on one file of histories, in one table, with the default split; TARGET is
next-item (the default) or next-basket. Networks train in FOLDER, where a killed run resumes, for
at most the epochs of their recipes or N; with 0 they are left out. They end by the validation of
the next item, so that both targets are asked of the same networks. By default, all of them train.
Networks of another seed need another FOLDER. ENCODER is a folder, or the name of a model such as
minilm.

`serving`: the ten items of the highest inner product for each of 10,000 users among 50,000 items of
width 64: by a full product, 256 users at a time, with a partial sort, beside `top_items`, one
thread each, alternating; with `graphs` also by the graph index. Items are 500 groups with noise and
lengths that differ, users lie near a mean of three items; or all numbers are normal. With
HISTORIES, lines as in `sequences`, also by the vectors of ALS, and of SASRec as `sequences` trains
it, for the first 10,000 users.
"""

from __future__ import annotations

import csv
import gzip
import json
import statistics
import sys
import time
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from idiolect.errors import InputError
from idiolect.ranking.evaluation.significance import compare
from idiolect.recommend.evaluate_recommender import compare_evaluations, scorers_of_texts
from idiolect.recommend.histories import Histories
from idiolect.recommend.history_files import read_histories
from idiolect.recommend.item_catalogue import join_catalogue, prices_of, read_catalogue
from idiolect.recommend.model_kinds import ItemText, Target
from idiolect.recommend.model_names import BASELINES, COMBINED
from idiolect.recommend.next_item_metrics import NextItemEvaluation, evaluate_scorer
from idiolect.recommend.scorer import ItemScorer, VectorScorer
from idiolect.recommend.scorers.blend import Blend
from idiolect.recommend.scorers.dense_text import DenseText, encode_items
from idiolect.recommend.scorers.learned_blend import LearnedBlend
from idiolect.recommend.scorers.matrix_factors import Als
from idiolect.recommend.scorers.text_similarity import TextSimilarity
from idiolect.recommend.splits import Cases, Split, split
from idiolect.recommend.top_items import top_items
from idiolect.search.diskann.graph import Graph
from idiolect.text.skipped import Skipped
from paired import compare as timed

MAX_EASE = 6_000
"""Items up to which EASE is in the table: the time of its matrix grows with the third power."""


@dataclass(frozen=True)
class AmazonRows:
    """Items' titles, training histories and cases, as `amazon` describes them."""

    titles: list[str]
    train: Histories
    valid: Cases
    test: Cases


def counted(train: Histories) -> dict[str, ItemScorer]:
    fitted: dict[str, ItemScorer] = {}
    for one in BASELINES:
        if one.name == "ease" and len(train.items) > MAX_EASE:
            print(f"without ease: {len(train.items):,} items")
            continue
        try:
            fitted[one.name] = one.fit(train)
        except InputError as error:
            print(f"without {one.name}: {error}")
    return fitted


def show(
    systems: Mapping[str, ItemScorer], test: Cases, train: Histories, *, exclude_seen: bool
) -> dict[str, NextItemEvaluation]:
    print(f"{len(test):,} cases, {len(train.events):,} training events")
    results = {}
    for name, scorer in systems.items():
        results[name] = evaluate_scorer(scorer, test, train.counts, exclude_seen=exclude_seen)
        means, cold = results[name].means(), results[name].means(results[name].cold)
        line = f"{name:<18} HR@10 {means['hr@10']:.4f}  N@10 {means['ndcg@10']:.4f}"
        line += f"  coverage {results[name].coverage:.3f}"
        print(line + (f"  cold N@10 {cold['ndcg@10']:.4f}" if cold else ""), flush=True)
    return results


def per_case(result: NextItemEvaluation) -> dict[str, float]:
    return {str(i): float(value) for i, value in enumerate(result.values("ndcg@10"))}


def sequences(path: Path, epochs: int, folder: Path) -> None:
    histories = read_histories(path)
    parts = split(histories, "leave-one-out")
    systems = counted(parts.train)
    if epochs:
        from idiolect.recommend.networks.train_network import train_network

        systems["sasrec"] = train_network("sasrec", parts, folder, epochs=epochs)
    blended = {name: one for name, one in systems.items() if name in COMBINED}
    blend = Blend.chosen_on(blended, parts.valid, exclude_seen=True)
    print("weights:", blend.weights)
    show({**systems, "blend": blend}, parts.test, parts.train, exclude_seen=True)


def systems(
    folder: Path,
    path: Path,
    target: Target,
    items: Path | None,
    encoder: str | None,
    epochs: int | None,
    networks: list[str],
    seed: int,
) -> None:
    from idiolect.recommend.networks.train_network import train_network

    histories, skipped, texts = read_histories(path), Skipped(), list[str]()
    metadata: list[dict[str, Any]] = []
    if items is not None:
        catalogue = read_catalogue(items, skipped)
        histories, texts, fit = join_catalogue(histories, catalogue.texts)
        metadata = [catalogue.metadata.get(id, {}) for id in histories.items]
        print(fit)
    vectors = None if encoder is None else encode_items(texts, encoder)
    parts, by_item = split(histories, target=target), split(histories)
    print(parts.report())
    exclude = histories.repeats_are_rare
    found = {**counted(parts.train), **scorers_of_texts(texts, vectors)}
    without_networks = {name: one for name, one in found.items() if name != "popularity"}
    trained: list[tuple[str, str, ItemText | None]] = [
        (one, one, None) for one in ("sasrec", "gru4rec", "two-tower", "bert4rec")
    ]
    if vectors is not None:
        trained.append(("unisrec", "unisrec", "alone"))
        trained += [(f"sasrec-{one}", "sasrec", one) for one in get_args(ItemText)]
    trained = [one for one in trained if not networks or one[0] in networks]
    for name, model, item_text in trained if epochs != 0 else ():
        start = time.perf_counter()
        found[name] = train_network(
            model,
            by_item,
            folder / name,
            vectors=vectors,
            item_text=item_text,
            epochs=epochs,
            seed=seed,
        )
        print(f"{name} trained in {time.perf_counter() - start:.0f} s", flush=True)
    together = {name: one for name, one in found.items() if name != "popularity"}
    for name, some in (("blend, no networks", without_networks), ("blend", together)):
        found[name] = blend = Blend.chosen_on(some, parts.valid, exclude_seen=exclude)
        print(f"weights of the {name}:", blend.weights)
    found["lambdamart"] = LearnedBlend.trained_on(
        together,
        parts.valid,
        parts.train,
        exclude_seen=exclude,
        prices=prices_of(metadata) if metadata else None,
    )
    results = show(found, parts.test, parts.train, exclude_seen=exclude)
    pairs = ("session-knn", "blend"), ("blend, no networks", "blend"), ("blend", "lambdamart")
    for first, second in pairs:
        row = compare_evaluations(results[first], results[second])
        interval = f"[{row['low']:+.4f}, {row['high']:+.4f}], p {row['p_value']:.4f}"
        print(f"{second} against {first}: {row['difference']:+.4f} {interval}")


def rows_of_amazon(folder: Path, name: str) -> AmazonRows:
    with gzip.open(folder / f"{name}.item.json.gz", "rt", encoding="utf-8") as file:
        titles = {id: str(item["title"]) for id, item in json.load(file).items()}
    number = {id: i for i, id in enumerate(titles)}
    rows = {part: read_rows(folder / f"{name}.{part}.csv.gz", number) for part in ("valid", "test")}
    last: dict[str, tuple[np.ndarray, int]] = {}
    for user, history, target in rows["valid"]:
        if user not in last or len(history) >= len(last[user][0]):
            last[user] = (history, target)  # rows are in order of time
    return AmazonRows(
        list(titles.values()),
        Histories.of_numbers(tuple(last), tuple(titles), [history for history, _ in last.values()]),
        # Only a user's last target is in no training history.
        as_cases(list(last.values())),
        as_cases([(history, target) for _, history, target in rows["test"]]),
    )


def texts(folder: Path, name: str, encoders: Mapping[str, str]) -> None:
    given = rows_of_amazon(folder, name)
    known = {one: scorer for one, scorer in counted(given.train).items() if one in COMBINED}
    table: dict[str, ItemScorer] = {}
    for kind, encoder in encoders.items():
        table[kind] = DenseText(encode_items(given.titles, encoder))
        both = {**known, "text-dense": table[kind]}
        table[f"blend, {kind}"] = Blend.chosen_on(both, given.valid, exclude_seen=False)
    results = show(table, given.test, given.train, exclude_seen=False)
    cold = results["plain"].cold
    for what in ("", "blend, "):
        pair = results[f"{what}plain"], results[f"{what}adapted"]
        for targets, where in (("all", None), ("warm", ~cold), ("cold", cold)):
            row = compare_evaluations(*pair, where, rounds=5000)
            interval = f"[{row['low']:+.4f}, {row['high']:+.4f}], p {row['p_value']:.4f}"
            cases = len(cold) if where is None else int(where.sum())
            print(f"{what}adapted, {targets} ({cases:,}): {row['difference']:+.4f} {interval}")


def amazon(folder: Path, name: str, encoder: str | None) -> None:
    given = rows_of_amazon(folder, name)
    titles, train, valid, test = given.titles, given.train, given.valid, given.test
    text: dict[str, ItemScorer] = {"text": TextSimilarity.of_texts(titles)}
    if encoder:
        text["text-dense"] = DenseText(encode_items(titles, encoder))
    systems = counted(train)
    parts = {one: scorer for one, scorer in systems.items() if one in COMBINED}
    plain = Blend.chosen_on(parts, valid, exclude_seen=False)
    blend = Blend.chosen_on({**parts, **text}, valid, exclude_seen=False)
    print("weights:", plain.weights, blend.weights)
    table = {**systems, **text, "blend, no text": plain, "blend": blend}
    report(show(table, test, train, exclude_seen=False))
    print("with the targets of the validation rows added to the training histories, same weights:")
    both = [np.append(*case) for case in zip(valid.contexts, valid.targets, strict=True)]
    train = Histories.of_numbers(train.users, train.items, both)
    again: dict[str, ItemScorer] = {one: type(scorer).fit(train) for one, scorer in parts.items()}
    table = {**again, **text, "blend, no text": Blend(again, plain.weights)}
    table["blend"] = Blend({**again, **text}, blend.weights)
    report(show(table, test, train, exclude_seen=False))


def report(results: Mapping[str, NextItemEvaluation]) -> None:
    test = compare(per_case(results["blend, no text"]), per_case(results["blend"]), rounds=5000)
    interval = f"[{test.low:+.4f}, {test.high:+.4f}]"
    print(f"text adds {test.difference:+.4f} {interval}, p {test.p_value:.4f}")


def as_cases(rows: list[tuple[np.ndarray, int]]) -> Cases:
    targets = np.array([target for _, target in rows])
    return Cases.of(range(len(rows)), [history for history, _ in rows], targets)


def read_rows(path: Path, number: Mapping[str, int]) -> list[tuple[str, np.ndarray, int]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [
            (
                row["user_id"],
                np.array([number[str(id)] for id in literal_eval(row["history_item_id"])]),
                number[row["item_id"]],
            )
            for row in csv.DictReader(file)
        ]


def serving(path: Path | None, epochs: int, folder: Path, *, graphs: bool) -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    rng = np.random.default_rng(0)
    normal = [rng.standard_normal((rows, 64)).astype(np.float32) for rows in (10_000, 50_000)]
    sets = {"groups": grouped_vectors(50_000, 10_000), "normal": (normal[0], normal[1])}
    if path is not None:
        sets |= trained_vectors(split(read_histories(path), "leave-one-out"), epochs, folder)
    for name, (states, vectors) in sets.items():
        wanted = full_product(states, vectors)
        found, _ = top_items(states, vectors, 10)
        pair = timed(
            lambda: top_items(states, vectors, 10), lambda: full_product(states, vectors), warm=0
        )
        print(f"{name}: {len(states):,} users, {len(vectors):,} items, width {vectors.shape[1]}")
        print(pair.line(f"  top_items, recall {overlap(found, wanted):.4f}", 5), flush=True)
        if graphs:
            search_graphs(states, vectors, wanted, statistics.median(pair.theirs))


def grouped_vectors(items: int, users: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    groups = rng.standard_normal((500, 64))
    vectors = groups[rng.integers(500, size=items)] + 0.7 * rng.standard_normal((items, 64))
    vectors = (vectors * rng.lognormal(0, 0.2, (items, 1))).astype(np.float32)
    return vectors[rng.integers(items, size=(users, 3))].mean(1), vectors


def trained_vectors(
    parts: Split, epochs: int, folder: Path
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from idiolect.recommend.networks.train_network import train_network

    models: dict[str, VectorScorer] = {"als": Als.fit(parts.train)}
    if epochs:
        models["sasrec"] = train_network("sasrec", parts, folder, epochs=epochs)
    contexts = parts.test.contexts[:10_000]
    return {name: (one.user_vectors(contexts), one.item_vectors()) for name, one in models.items()}


def full_product(states: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    found = np.empty((len(states), 10), np.int64)
    for start in range(0, len(states), 256):
        scores = states[start : start + 256] @ vectors.T
        found[start : start + 256] = np.argpartition(scores, -10, 1)[:, -10:]
    return found


def overlap(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True)])) / 10


def search_graphs(states: np.ndarray, vectors: np.ndarray, wanted: np.ndarray, full: float) -> None:
    """Search graphs by inner product, and by cosine with a coordinate that makes lengths equal."""
    lengths = np.square(vectors).sum(1)
    last = np.sqrt(np.maximum(0, lengths.max() - lengths))[:, None].astype(np.float32)
    padded = np.concatenate([states, np.zeros((len(states), 1), np.float32)], 1)
    for metric, base, queries in (
        ("inner", vectors, states),
        ("cosine", np.concatenate([vectors, last], 1), padded),
    ):
        start = time.perf_counter()
        graph = Graph.build(base, metric=metric, degree=32, threads=1)
        print(f"{metric} graph built in {time.perf_counter() - start:.1f} s", flush=True)
        graph.search(queries[:10], 10, threads=1)
        for size in (64, 256, 1024):
            start = time.perf_counter()
            found, _ = graph.search(queries, 10, list_size=size, threads=1)
            own = time.perf_counter() - start
            recall = overlap(found, wanted)
            print(f"  list of {size}: {own:.2f} s, {full / own:.1f} times, recall {recall:.4f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["sequences"] and len(sys.argv) in (3, 5):
        sequences(
            Path(sys.argv[2]),
            *((int(sys.argv[3]), Path(sys.argv[4])) if sys.argv[3:] else (0, Path())),
        )
    elif sys.argv[1:2] == ["amazon"] and len(sys.argv) in (4, 5):
        amazon(Path(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) == 5 else None)
    elif sys.argv[1:2] == ["texts"] and len(sys.argv) == 6:
        encoders = dict(zip(("plain", "adapted"), sys.argv[4:], strict=True))
        texts(Path(sys.argv[2]), sys.argv[3], encoders)
    elif sys.argv[1:2] == ["systems"] and 4 <= len(sys.argv) <= 10:
        given = [one for one in sys.argv[4:] if "=" not in one]
        named = dict(one.split("=", 1) for one in sys.argv[4:] if "=" in one)
        systems(
            Path(sys.argv[2]),
            Path(sys.argv[3]),
            "next-basket" if given[:1] == ["next-basket"] else "next-item",
            Path(given[1]) if len(given) > 1 else None,
            given[2] if len(given) > 2 else None,
            int(named["epochs"]) if "epochs" in named else None,
            named["networks"].split(",") if "networks" in named else [],
            int(named.get("seed", 0)),
        )
    elif sys.argv[1:2] == ["serving"]:
        given = [one for one in sys.argv[2:] if one != "graphs"]
        serving(
            Path(given[0]) if given else None,
            *((int(given[1]), Path(given[2])) if given[1:] else (0, Path())),
            graphs="graphs" in sys.argv[2:],
        )
    else:
        sys.exit(__doc__)
