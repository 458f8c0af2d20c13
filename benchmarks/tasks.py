"""Measure the tasks on published data sets, beside baselines without training.

    python benchmarks/tasks.py OUT ncbi-disease trec --base minilm --seeds 3 -- --crf
    python benchmarks/tasks.py OUT trec ncbi-disease --base smollm2 --seeds 3 --frozen
    python benchmarks/tasks.py OUT trec --base AWD --lower -- --transfer benchmarks/ulmfit.toml
    python benchmarks/tasks.py OUT --table
    python benchmarks/tasks.py OUT --baselines

Each set is written to OUT/SET in the format of its task. Each run trains, measures the test set by
`idiolect tasks`, and appends its figures to OUT/results.jsonl. A run that was stopped resumes, and
a finished one is not repeated. Arguments after `--` go to `train`. With `--frozen`, only heads are
trained, in one process, so that a large base reads each text once and not for each seed; the pairs
of PubMedQA are read as one text.

Sets: sst2, mr, subj, trec, scicite, acl-arc, chemprot, pubmedqa (classify); wnut17, ncbi-disease,
bc5cdr (tag); xquad-en, xquad-es and its other languages (answer-span); scitldr (summarise). MR and
Subj have no split: a tenth, drawn at random, is the test set. XQuAD: every fifth paragraph is
tested, the others are trained on, since SQuAD's training set is not at hand. xquad-to-es and so on:
trained on the paragraphs of the other eleven languages instead, translations of one another.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from record import figure
from task_sets import CLASSIFY, TAG, draw, joined, lower, write_set

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder

HANDBOOK = {
    "trec.full": ("minilm", "classifier", "TREC-6 test accuracy, MiniLM, all weights"),
    "trec.frozen": ("minilm --adaptation frozen", "classifier", "the same, frozen"),
    "trec.words": ("minilm", "TF-IDF + logistic regression", "TF-IDF and logistic regression"),
    "trec.majority": ("minilm", "majority label", "the largest class"),
}
"""Figures of TREC-6 that the handbook shows: run, system, and what it is."""
CEILINGS = {
    "sst2": "87.2 accuracy (Kim CNN)",
    "mr": "81.5 accuracy (Kim CNN)",
    "subj": "93.4 accuracy (Kim CNN)",
    "trec": "93.6 accuracy (Kim CNN)",
    "scicite": "85.49 macro-F1 (SciBERT)",
    "acl-arc": "70.98 macro-F1 (SciBERT)",
    "chemprot": "83.64 micro-F1 (SciBERT)",
    "wnut17": "41.86 F1 (best of the shared task)",
    "ncbi-disease": "88.57 F1 (SciBERT)",
    "bc5cdr": "90.01 F1 (SciBERT)",
    "scitldr": "43.8 ROUGE-1 (CATTS)",
}


def idiolect(*words: object) -> str:
    command = [sys.executable, "-m", "idiolect", "tasks", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(
    out: Path, name: str, base: str, seed: int, extra: list[str], given: argparse.Namespace
) -> None:
    """Train and measure once, unless it is done, and append a line to OUT/results.jsonl."""
    limit = given.limit
    label = " ".join([Path(base).name, *(["--lower"] if given.lower else []), *extra])
    key: dict[str, Any] = {"set": name, "run": label, "seed": seed, "limit": limit}
    if any(key.items() <= ({"limit": None} | row).items() for row in results(out)):
        return
    folder = out / name
    task, ending = write_set(name, folder)
    run = folder / f"{label.replace(' ', '').replace('/', '')}.{limit}.{seed}"
    train, test = folder / f"train.{ending}", folder / f"test.{ending}"
    if given.lower:
        train, test = lower(train), lower(test)
    if limit is not None:
        train = draw(train, limit)
    fields = ["--text-pair", "context"] if name == "pubmedqa" else []
    start = time.perf_counter()
    which = "--model" if task == "summarise" else "--encoder"
    idiolect(task, "train", train, which, base, "-o", run, "--seed", seed, *fields, *extra)
    seconds = round(time.perf_counter() - start)
    known = ["--train", train] if task in ("classify", "tag") else []
    found = json.loads(idiolect(task, "evaluate", run / "model", test, *known, *fields, "--json"))
    row = {**key, "seconds": seconds, "systems": summary({"task": task, **found})}
    with (out / "results.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    shutil.rmtree(run)
    print(json.dumps(row), flush=True)


def measure_frozen(out: Path, name: str, base: str, given: argparse.Namespace) -> None:
    """Train a head for each seed on one frozen base, which reads each text once."""
    from idiolect.encoding.encoder import Encoder
    from idiolect.models.language_model import LanguageModel

    limit = given.limit
    task, ending = write_set(name, out / name)
    train, test = (out / name / f"{side}.{ending}" for side in ("train", "test"))
    if given.lower:
        train, test = lower(train), lower(test)
    train = train if limit is None else draw(train, limit)
    if name == "pubmedqa":
        train, test = joined(train), joined(test)
    encoder = Encoder(LanguageModel.load(base), max_length=512, precision="bf16")
    train_head = {"tag": tag_frozen, "answer-span": find_frozen}.get(task, classify_frozen)(
        encoder, train, test
    )
    label = " ".join(
        [Path(base).name, *(["--lower"] if given.lower else []), "--adaptation frozen"]
    )
    for seed in range(given.seeds):
        key = {"set": name, "run": label, "seed": seed, "limit": limit}
        if any(key.items() <= row.items() for row in results(out)):
            continue
        start, run = time.perf_counter(), out / name / f"frozen.{seed}"
        systems = train_head(seed, run)
        seconds = round(time.perf_counter() - start)
        row = {**key, "seconds": seconds, "systems": {n: round(v, 3) for n, v in systems.items()}}
        with (out / "results.jsonl").open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        shutil.rmtree(run)
        print(json.dumps(row), flush=True)


def tag_frozen(
    encoder: Encoder, train: Path, test: Path
) -> Callable[[int, Path], dict[str, float]]:
    """Return a function of a seed and a folder that trains and measures a tagger's head."""
    from idiolect.tasks.tag import text_tagger
    from idiolect.tasks.tag.tagged_texts import read_tagged_texts, span_labels
    from idiolect.tasks.tag.tagging_metrics import score_spans

    texts, tests = read_tagged_texts(train), read_tagged_texts(test)
    read = remembered_states(text_tagger.hidden_states, encoder)

    def hidden_states(network: Any, rows: list[list[int]], **_: Any) -> tuple[Any, None]:
        return read(rows), None

    def train_head(seed: int, run: Path) -> dict[str, float]:
        model = text_tagger.TextTagger(encoder, span_labels(texts), crf=True, seed=seed)
        with mock.patch.object(text_tagger, "hidden_states", hidden_states):
            model.train(texts, output_dir=run, adaptation="frozen", epochs=10)
            found = model.predict(tests)
        truth = [one.spans or () for one in tests]
        return {"tagger": 100 * score_spans(truth, [one.spans for one in found]).micro.f1}

    return train_head


def find_frozen(
    encoder: Encoder, train: Path, test: Path
) -> Callable[[int, Path], dict[str, float]]:
    """Return a function of a seed and a folder that trains and measures a finder's head."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from idiolect.tasks.answer_span import answer_finder
    from idiolect.tasks.answer_span.squad_files import read_questions
    from idiolect.tasks.answer_span.squad_metrics import score_answers

    questions, tests = read_questions(train), read_questions(test)
    read = remembered_states(answer_finder.hidden_states, encoder)

    def hidden_states(network: Any, rows: list[list[int]], **_: Any) -> tuple[Any, Any]:
        states = read(rows)
        mask = [torch.ones(len(state), dtype=torch.bool) for state in states]
        return pad_sequence(states, True), pad_sequence(mask, True)

    def train_head(seed: int, run: Path) -> dict[str, float]:
        model = answer_finder.AnswerFinder(encoder, seed=seed)
        with mock.patch.object(answer_finder, "hidden_states", hidden_states):
            model.train(questions, output_dir=run, adaptation="frozen", epochs=10)
            found = model.predict(tests)
        return {"finder": score_answers(tests, [one.text for one in found]).f1}

    return train_head


def classify_frozen(
    encoder: Encoder, train: Path, test: Path
) -> Callable[[int, Path], dict[str, float]]:
    """Return a function of a seed and a folder that trains and measures a classifier's head."""
    from idiolect.tasks.classify import text_classifier
    from idiolect.tasks.classify.classification_metrics import score_classes
    from idiolect.tasks.classify.labelled_texts import labels_of, read_labelled_texts
    from idiolect.tasks.finetuning.text_states import concat_pooling_by_default

    rows, others = read_labelled_texts(train), read_labelled_texts(test)
    labels, concat = labels_of(rows), concat_pooling_by_default(encoder, "frozen", pairs=False)
    read_texts = remembered(text_classifier.read_texts)

    def train_head(seed: int, run: Path) -> dict[str, float]:
        model = text_classifier.TextClassifier(encoder, labels, concat_pooling=concat, seed=seed)
        with mock.patch.object(text_classifier, "read_texts", read_texts):
            model.train(rows, output_dir=run, adaptation="frozen", epochs=10)
            scores = score_classes(model.probabilities(others), model.numbers(others))
        return {
            "classifier": 100 * scores.accuracy,
            "classifier, macro-F1": 100 * scores.macro_f1,
        }

    return train_head


def remembered_states(
    read: Callable[..., Any], encoder: Encoder
) -> Callable[[list[list[int]]], list[Any]]:
    """Return a function that gives the hidden states of rows of ids, and reads each row once."""
    import torch

    known: dict[tuple[int, ...], Any] = {}

    def states_of(rows: list[list[int]]) -> list[Any]:
        new = [row for row in {tuple(row): row for row in rows}.values() if tuple(row) not in known]
        if new:
            with torch.inference_mode():
                states, _ = read(encoder.model.network, new, precision=encoder.precision)
            for row, state in zip(new, states, strict=True):
                known[tuple(row)] = state[: len(row)].float().clone()
        with torch.inference_mode(False):
            return [known[tuple(row)].clone() for row in rows]

    return states_of


def remembered(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return `read_texts` so that it computes the vector of each row of ids once."""
    import torch

    known: dict[tuple[int, ...], Any] = {}

    def read_texts(encoder: Any, rows: Any, **options: Any) -> Any:
        if new := [row for row in rows if tuple(row) not in known]:
            vectors, _ = read(encoder, new, **options)
            known.update(zip(map(tuple, new), vectors.float().clone(), strict=True))
        return torch.stack([known[tuple(row)] for row in rows]), torch.zeros(())

    return read_texts


def results(out: Path) -> list[dict[str, Any]]:
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(found: dict[str, Any]) -> dict[str, float]:
    """Return the task's measures of each system, in percent."""
    systems = {n: one for n, one in found.items() if isinstance(one, dict)}
    if found["task"] == "tag":
        scores = {n: 100 * one["micro"]["f1"] for n, one in systems.items()}
    elif found["task"] == "answer-span":
        scores = {n: one["f1"] for n, one in systems.items()}
    elif found["task"] == "summarise":
        scores = {n: one["rouge1"] for n, one in systems.items()}
    else:
        scores = {n: 100 * one["accuracy"] for n, one in systems.items()} | {
            f"{n}, macro-F1": 100 * one["macro_f1"] for n, one in systems.items()
        }
    return {name: round(score, 3) for name, score in scores.items()}


def baselines(out: Path) -> None:
    """Print what classifiers that read no language model reach on each set."""
    from idiolect.tasks.classify.classification_baselines import (
        TfidfClassifier,
        majority_probabilities,
    )
    from idiolect.tasks.classify.classification_metrics import score_classes
    from idiolect.tasks.classify.labelled_texts import read_labelled_texts

    print("| set | training, test texts | labels | majority | TF-IDF | macro-F1 | published |")
    print("|---|---|--:|--:|--:|--:|---|")
    for name in CLASSIFY:
        write_set(name, out / name)
        pair = "context" if name == "pubmedqa" else None
        train, test = (
            read_labelled_texts(out / name / f"{side}.jsonl", text_pair=pair)
            for side in ("train", "test")
        )
        model = TfidfClassifier(train)
        truth = np.array([model.labels.index(str(one.label)) for one in test])
        found = score_classes(model.probabilities(test), truth)
        most = score_classes(majority_probabilities(train, model.labels, len(test)), truth)
        print(
            f"| {name} | {len(train):,}, {len(test):,} | {len(model.labels)} "
            f"| {100 * most.accuracy:.1f} | {100 * found.accuracy:.1f} "
            f"| {100 * found.macro_f1:.1f} | {CEILINGS.get(name, '–')} |",
            flush=True,
        )


def table(out: Path) -> None:
    """Print a Markdown row for each set and system: mean, standard deviation, seeds."""
    print("| set | texts | run | system | mean | deviation | seeds | seconds | published |")
    print("|---|--:|---|---|--:|--:|--:|--:|---|")
    runs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in results(out):
        texts = str(row.get("limit") or "all")
        runs.setdefault((row["set"], texts, row["run"]), []).append(row)
    for (name, texts, label), rows in sorted(runs.items()):
        for system in rows[0]["systems"]:
            values = [row["systems"][system] for row in rows]
            spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "–"
            seconds = statistics.median(row["seconds"] for row in rows)
            cells = [
                name,
                texts,
                label,
                system,
                f"{statistics.mean(values):.2f}",
                spread,
                len(values),
            ]
            print(f"| {' | '.join(map(str, [*cells, round(seconds), CEILINGS.get(name, '–')]))} |")
    for key, (label, system, what) in HANDBOOK.items():
        values = [row["systems"][system] for row in runs.get(("trec", "all", label), [])]
        if values:
            figure(key, f"{statistics.mean(values):.1f} %", f"{what}; seeds: {len(values)}")


def main() -> None:
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    extra = words[end + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--limit", type=int, help="Most training texts, drawn at random.")
    parser.add_argument("--lower", action="store_true", help="Texts in lower case.")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--baselines", action="store_true")
    given = parser.parse_args(words[:end])
    known = [*CLASSIFY, *TAG, "scitldr"]
    for name in given.sets:
        if name not in known and not name.startswith("xquad-"):
            parser.error(f"unknown set {name}: one of {', '.join(known)}, xquad-LANGUAGE")
    for name in given.sets:
        if given.frozen:
            measure_frozen(given.out, name, given.base, given)
            continue
        for seed in range(given.seeds):
            measure(given.out, name, given.base, seed, extra, given)
    if given.baselines:
        baselines(given.out)
    if given.table:
        table(given.out)


if __name__ == "__main__":
    main()
