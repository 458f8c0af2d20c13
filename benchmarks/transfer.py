"""Transfer: TREC-6 and SST-2 from scratch, and from a language model, with each trick left out.

    python benchmarks/transfer.py prepare DATA WORK
    idiolect tokenizer train WORK/openstax.txt WORK/trec-text.txt WORK/sst2-text.txt \
        --vocab-size 6000 --algorithm bpe -o WORK/tok
    idiolect pretrain WORK/tok WORK/openstax.txt --config benchmarks/transfer.toml -o WORK/general
    python benchmarks/transfer.py run WORK --task trec --size 100
    python benchmarks/transfer.py table WORK

DATA holds `sentence-classification` and `openstax`. Each run is one line of WORK/results.jsonl, and
runs that are there are not repeated. The network is a small AWD-LSTM (transfer.toml); with
`--model idiolect-base` it is that model, pre-trained or with new weights.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import shutil
import tempfile
import time
import tomllib
from collections import defaultdict
from pathlib import Path

import numpy as np

from idiolect.encoding.encoder import Encoder
from idiolect.models.language_model import LanguageModel
from idiolect.tasks.classify.classification_baselines import (
    TfidfClassifier,
    majority_probabilities,
)
from idiolect.tasks.classify.labelled_texts import LabelledText, labels_of, read_labelled_texts
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.finetuning.domain_adaptation import adapt_to_domain
from idiolect.tasks.finetuning.recipe import FineTuning
from idiolect.tasks.task_model import task_config
from idiolect.text.tokenizers.tokenizer import Tokenizer

FILES = {
    "trec": {"train": "TREC.train.all.gz", "test": "TREC.test.all"},
    "sst2": {"train": "stsa.binary.train.gz", "test": "stsa.binary.test.gz"},
}
STEPS = {"trec": 600, "sst2": 800}
"""Steps of the adaptation to the task's text, of 16 rows of 64 tokens."""
DROPOUT = {
    "embedding_dropout": 0.02,
    "input_dropout": 0.1,
    "hidden_dropout": 0.1,
    "output_dropout": 0.1,
    "weight_dropout": 0.2,
    "activation_regularization": 1.0,
    "temporal_activation_regularization": 0.5,
}
"""Of every network that learns a task; the pre-training of transfer.toml has none."""
EPOCHS = {"100": 24, "full": 5}
BATCH = {"100": 16, "full": 32}
ULMFIT = {"recipe": "ulmfit"}
SYSTEMS: dict[str, dict[str, object]] = {
    "from scratch": {"recipe": "plain", "base": "scratch"},
    "from scratch, all methods": {"recipe": "ulmfit", "base": "scratch"},
    "language model, plain": {"recipe": "plain"},
    "language model, plain, λ 0.5": {"recipe": "gpt1"},
    "language model, not adapted, plain": {"recipe": "plain", "base": "general"},
    "language model, not adapted, rates × 0.7 a layer": {
        "recipe": "plain",
        "base": "general",
        "layer_decay": 0.7,
    },
    "ULMFiT": ULMFIT,
    "… without discriminative rates": ULMFIT | {"layer_decay": 1.0},
    "… without slanted triangular rates": ULMFIT | {"slanted_triangular": False},
    "… without gradual unfreezing": ULMFIT | {"gradual_unfreezing": False},
    "… without concat pooling": ULMFIT | {"concat_pooling": False},
    "… without adaptation to the task's text": ULMFIT | {"base": "general"},
    "… with λ 0.5": ULMFIT | {"lm_loss_weight": 0.5},
}
RATES = {"plain": 3e-3, "ulmfit": 8e-3}
MODEL_RATES = {"scratch": 1e-3, "plain": 5e-4, "ulmfit": 2e-3}
"""Of a published model: from scratch the better one of 5e-4 and 1e-3."""


def normalize(text: str) -> str:
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))


def prepare(data: Path, work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    with (work / "openstax.txt").open("w") as out:
        number = 0
        for path in sorted((data / "openstax/text").glob("*.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for line in map(normalize, lines):
                    if len(line.split()) >= 5:
                        number += 1
                        if number % 200:  # the others are held out
                            out.write(line + "\n")
    for task, files in FILES.items():
        for part, name in files.items():
            path = data / "sentence-classification" / name
            raw = path.read_bytes()
            text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("latin-1")
            pairs = [line.partition(" ") for line in text.splitlines() if line.strip()]
            rows = [{"text": normalize(words), "label": label} for label, _, words in pairs]
            (work / f"{task}-{part}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
            if part == "train":
                (work / f"{task}-text.txt").write_text("\n".join(r["text"] for r in rows) + "\n")


def subset(examples: list[LabelledText], size: str, seed: int) -> list[LabelledText]:
    """Draw examples; at least one of each label."""
    if size == "full":
        return examples
    draw = random.Random(seed)
    shuffled = draw.sample(examples, len(examples))
    first = {example.label: example for example in reversed(shuffled)}
    rest = [e for e in shuffled if all(e is not one for one in first.values())]
    return [*first.values(), *rest][: int(size)]


def base_model(work: Path, base: str, task: str, seed: int, published: str | None) -> LanguageModel:
    """Return the network that learns a task; by default an AWD-LSTM of WORK's."""
    if base == "scratch":
        if published is not None:
            model = LanguageModel.load(published)
            return LanguageModel.new(model.settings, model.tokenizer, seed=seed)
        shape = tomllib.loads((Path(__file__).parent / "transfer.toml").read_text())["model"]
        return LanguageModel.new(shape | DROPOUT, Tokenizer.load(work / "tok"), seed=seed)
    where = published or with_dropout(work)
    if base == "general":
        return LanguageModel.load(where)
    adapted = work / "-".join(["adapted", task, *([Path(published).name] if published else [])])
    if not (adapted / "model").is_dir():
        texts = [e.text for e in read_labelled_texts(work / f"{task}-train.jsonl")]
        adapt_to_domain(
            Encoder(LanguageModel.load(where)),
            texts,
            output_dir=adapted,
            steps=STEPS[task],
            learning_rate=5e-4 if published else 2e-3,
            unfreeze_original_rows=True,
            layer_decay=1 / 2.6**0.5,
        )
    return LanguageModel.load(adapted / "model")


def with_dropout(work: Path) -> Path:
    """Return the folder of the pre-trained AWD-LSTM with the dropout of fine-tuning."""
    general = work / "with-dropout"
    if not general.exists():
        shutil.copytree(work / "general/model", general)
        config = json.loads((general / "config.json").read_text())
        (general / "config.json").write_text(json.dumps(config | DROPOUT))
    return general


def run_one(work: Path, name: str, seed: int, args: argparse.Namespace) -> float:
    task, size, published = args.task, args.size, args.model
    settings = dict(SYSTEMS[name])
    base, recipe = str(settings.pop("base", "adapted")), str(settings.pop("recipe"))
    methods = FineTuning.of(recipe, unfreeze_original_rows=True, **settings)
    train = subset(read_labelled_texts(work / f"{task}-train.jsonl"), size, seed)
    test = read_labelled_texts(work / f"{task}-test.jsonl")
    network = base_model(work, base, task, seed, published)
    encoder = Encoder(network, pooling="mean" if published else "last", normalize=False)
    model = TextClassifier(
        encoder, labels_of(train), concat_pooling=methods.concat_pooling, seed=seed
    )
    rates = RATES if published is None else MODEL_RATES
    kind = "ulmfit" if recipe == "ulmfit" and methods.layer_decay < 1 else "plain"
    rate = args.rate or rates.get(base, rates[kind])
    config = task_config(
        batch_size=BATCH[size],
        learning_rate=rate,
        learning_rates={},
        seed=seed,
        precision="fp32",
        save_steps=10**6,
    )
    out = Path(tempfile.mkdtemp())
    model.train(train, output_dir=out, epochs=EPOCHS[size], config=config, fine_tuning=methods)
    shutil.rmtree(out)
    truth = model.numbers(test)
    return float((model.probabilities(test).argmax(1) == truth).mean())


def baselines(work: Path, task: str, size: str, seed: int) -> dict[str, float]:
    train = subset(read_labelled_texts(work / f"{task}-train.jsonl"), size, seed)
    test = read_labelled_texts(work / f"{task}-test.jsonl")
    labels = labels_of(train)
    truth = np.array([labels.index(str(e.label)) for e in test])
    found = {
        "TF-IDF + logistic regression": TfidfClassifier(train).probabilities(test),
        "majority label": majority_probabilities(train, labels, len(test)),
    }
    return {name: float((p.argmax(1) == truth).mean()) for name, p in found.items()}


def run(work: Path, args: argparse.Namespace) -> None:
    results = work / "results.jsonl"
    known = set()
    if results.exists():
        for line in results.read_text().splitlines():
            one = json.loads(line)
            known.add((one["system"], one["task"], one["size"], one["seed"]))
    for seed in range(args.first_seed, args.seeds):
        todo = [n for n in SYSTEMS if not args.systems or n in args.systems.split("|")]
        for name in [*todo, "baselines"]:
            label = name if args.model is None or name == "baselines" else f"{args.model}: {name}"
            key = (label, args.task, args.size, seed)
            if key in known:
                continue
            began = time.process_time()
            if name == "baselines":
                found = baselines(work, args.task, args.size, seed)
            else:
                found = {label: run_one(work, name, seed, args)}
            seconds = time.process_time() - began
            with results.open("a") as out:
                for system, accuracy in found.items():
                    row = {"system": system, "task": args.task, "size": args.size, "seed": seed}
                    out.write(json.dumps(row | {"accuracy": accuracy, "seconds": seconds}) + "\n")
                    print(f"{system} {args.task} {args.size} {seed}: {accuracy:.4f}", flush=True)
                if name == "baselines":
                    out.write(
                        json.dumps(dict(zip(("system", "task", "size", "seed"), key, strict=True)))
                        + "\n"
                    )


def table(work: Path) -> None:
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    lines = (work / "results.jsonl").read_text().splitlines()
    for one in sorted(map(json.loads, lines), key=lambda one: int(one["seed"])):
        if "accuracy" in one:
            found[one["task"], one["size"]][one["system"]].append(1 - one["accuracy"])
    columns = sorted(found)
    print("| test error | " + " | ".join(f"{task} {size}" for task, size in columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for name in dict.fromkeys(name for column in found.values() for name in column):
        cells = []
        for column in columns:
            errors = found[column].get(name, [])
            listed = ", ".join(f"{100 * e:.1f}" for e in errors)
            cells.append(f"**{100 * np.mean(errors):.1f}** ({listed})" if errors else "–")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("prepare")
    first.add_argument("data", type=Path)
    first.add_argument("work", type=Path)
    second = commands.add_parser("run")
    second.add_argument("work", type=Path)
    second.add_argument("--task", choices=FILES, required=True)
    second.add_argument("--size", choices=EPOCHS, required=True)
    second.add_argument("--seeds", type=int, default=3)
    second.add_argument("--first-seed", type=int, default=0)
    second.add_argument("--systems", help="Names separated by |.")
    second.add_argument("--rate", type=float)
    second.add_argument("--model", help="A published decoder instead of WORK's AWD-LSTM.")
    commands.add_parser("table").add_argument("work", type=Path)
    args = parser.parse_args()
    if args.command == "prepare":
        prepare(args.data, args.work)
    elif args.command == "run":
        run(args.work, args)
    else:
        table(args.work)


if __name__ == "__main__":
    main()
