"""Recommenders on published rows, all items ranked, beside figures that others published.

    python benchmarks/recommendation.py sequences FILE [EPOCHS]
    python benchmarks/recommendation.py amazon FOLDER NAME

`sequences`: lines of `user item item …`, such as the 5-core sets of S3-Rec. A user's last event is
the test, the one before it is validation, and neither is trained on. With EPOCHS, SASRec is a part
of the blend.

`amazon`: NAME.valid.csv.gz, NAME.test.csv.gz and NAME.item.json.gz as MiniOneRec publishes them.
Training histories are those of the validation file, at most ten items each, since the original
training file cannot be had; the blend's weights are chosen on its targets. Cold targets are those
in no training history. Adding the words of titles is tested against the blend without them.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import tempfile
from ast import literal_eval
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from idiolect.errors import InputError
from idiolect.ranking.evaluation.significance import compare
from idiolect.recommend.blend import Blend
from idiolect.recommend.histories import Histories
from idiolect.recommend.history_files import read_histories
from idiolect.recommend.model_names import BASELINES
from idiolect.recommend.next_item_metrics import NextItemEvaluation, evaluate_scorer
from idiolect.recommend.scorer import ItemScorer
from idiolect.recommend.splits import Cases, split
from idiolect.recommend.text_similarity import TextSimilarity

MAX_EASE = 6_000
"""Items up to which EASE is in the table: the time of its matrix grows with the third power."""


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


def sequences(path: Path, epochs: int) -> None:
    histories = read_histories(path)
    parts = split(histories, "leave-one-out")
    systems = counted(parts.train)
    if epochs:
        from idiolect.recommend.networks.train_network import train_network

        with tempfile.TemporaryDirectory() as folder:
            systems["sasrec"] = train_network("sasrec", parts, Path(folder), epochs=epochs)
    blended = {name: one for name, one in systems.items() if not name.startswith("popularity")}
    blend = Blend.chosen_on(blended, parts.valid, exclude_seen=True)
    print("weights:", blend.weights)
    show({**systems, "blend": blend}, parts.test, parts.train, exclude_seen=True)


def amazon(folder: Path, name: str) -> None:
    with gzip.open(folder / f"{name}.item.json.gz", "rt", encoding="utf-8") as file:
        titles = {id: str(item["title"]) for id, item in json.load(file).items()}
    items = tuple(titles)
    number = {id: i for i, id in enumerate(items)}
    rows = {part: read_rows(folder / f"{name}.{part}.csv.gz", number) for part in ("valid", "test")}
    last: dict[str, tuple[np.ndarray, int]] = {}
    for user, history, target in rows["valid"]:
        if user not in last or len(history) >= len(last[user][0]):
            last[user] = (history, target)  # rows are in order of time
    users = tuple(last)
    train = Histories.of_numbers(users, items, [history for history, _ in last.values()])
    # Only a user's last target is in no training history.
    valid = as_cases(list(last.values()))
    test = as_cases([(history, target) for _, history, target in rows["test"]])
    text = TextSimilarity.of_texts(list(titles.values()))
    systems = counted(train)
    parts = {one: scorer for one, scorer in systems.items() if not one.startswith("popularity")}
    plain = Blend.chosen_on(parts, valid, exclude_seen=False)
    blend = Blend.chosen_on({**parts, "text": text}, valid, exclude_seen=False)
    print("weights:", plain.weights, blend.weights)
    table = {**systems, "text": text, "blend, no text": plain, "blend": blend}
    report(show(table, test, train, exclude_seen=False))
    print("with the targets of the validation rows added to the training histories, same weights:")
    both = [np.append(history, target) for history, target in last.values()]
    train = Histories.of_numbers(users, items, both)
    again: dict[str, ItemScorer] = {one: type(scorer).fit(train) for one, scorer in parts.items()}
    table = {**again, "text": text, "blend, no text": Blend(again, plain.weights)}
    table["blend"] = Blend({**again, "text": text}, blend.weights)
    report(show(table, test, train, exclude_seen=False))


def report(results: Mapping[str, NextItemEvaluation]) -> None:
    test = compare(per_case(results["blend, no text"]), per_case(results["blend"]), rounds=5000)
    interval = f"[{test.low:+.4f}, {test.high:+.4f}]"
    print(f"text adds {test.difference:+.4f} {interval}, p {test.p_value:.4f}")


def as_cases(rows: list[tuple[np.ndarray, int]]) -> Cases:
    targets = np.array([target for _, target in rows])
    return Cases(tuple(range(len(rows))), [history for history, _ in rows], targets)


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


if __name__ == "__main__":
    if sys.argv[1:2] == ["sequences"] and len(sys.argv) in (3, 4):
        sequences(Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 0)
    elif sys.argv[1:2] == ["amazon"] and len(sys.argv) == 4:
        amazon(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(__doc__)
