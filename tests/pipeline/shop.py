"""A shop of forty items with invented names, and a model that has not seen them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.bpe import train

KINDS = {
    "zorblaxine": "a pump for water",
    "quendrifolate": "a lamp for the garden",
    "mivotrexol": "a knife for bread",
    "fluxobarine": "a chair for the office",
}
COMMON = [
    "the",
    "house",
    "and",
    "water",
    "in",
    "garden",
    "with",
    "a",
    "lamp",
    "for",
    "bread",
    "chair",
]

CONFIG = """\
base = "model"
out = "run"

[data]
items = "items.jsonl"
text = "text"
general = "general.txt"
pairs = "pairs.jsonl"
queries = "queries.jsonl"
qrels = "qrels.tsv"
similar = "similar.tsv"

[audit]
max_rows = 8

[distill]
contexts = 2

[pretrain]
steps = 4
max_length = 32
batch_size = 2

[encoder]
max_length = 32
layers = "all"

[tune]
steps = 3
batch_size = 8
dimensions = [8]

[evaluate]
windows = 4
"""


def open_shop(
    folder: Path, *, controls: bool = False, histories: bool = False, task: bool = False
) -> Path:
    """Write a base, data and a configuration; return the path of the latter."""
    draw = random.Random(0)
    general = [" ".join(draw.choices(COMMON, k=20)) for _ in range(60)]
    tokenizer = train(general, 300)
    settings = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }
    LanguageModel.new(settings, tokenizer).save(folder / "model")
    items = [
        {
            "id": f"{name}-{number}",
            "title": f"{name} {number}",
            "text": f"the {name} is {what}, {' '.join(draw.choices(COMMON, k=8))}",
        }
        for name, what in KINDS.items()
        for number in range(10)
    ]
    write(folder / "items.jsonl", items)
    (folder / "general.txt").write_text("\n".join(general))
    write(
        folder / "pairs.jsonl",
        [{"query": item["title"], "document_id": item["id"]} for item in items[::2]],
    )
    write(folder / "queries.jsonl", [{"id": name, "text": what} for name, what in KINDS.items()])
    grades = [f"{name}\t{name}-{number}\t1" for name in KINDS for number in range(10)]
    table(folder / "qrels.tsv", grades)
    table(folder / "similar.tsv", [f"{name}-0\t{name}-{n}\t1" for name in KINDS for n in (1, 2)])
    path = folder / "idiolect.toml"
    path.write_text(CONFIG if controls else f"{CONFIG}controls = false\n")
    if histories:
        # Users stay with one kind of item, of which the last is new to everybody.
        sessions = [
            {"user": str(user), "items": [f"{name}-{(user + n) % 9}" for n in range(4)]}
            for user in range(24)
            for name in [list(KINDS)[user % 4]]
        ]
        sessions += [{"user": name, "items": [f"{name}-{n}" for n in (3, 4, 9)]} for name in KINDS]
        write(folder / "histories.jsonl", sessions)
        added = 'histories = "histories.jsonl"\n\n[recommend]\nepochs = 1\n\n[audit]'
        change(path, "[audit]", added)
    if task:
        rows = [{"text": item["text"], "label": item["title"].split()[0]} for item in items]
        write(folder / "labelled.jsonl", rows[::2])
        write(folder / "labelled-test.jsonl", [*rows[1::2], rows[0]])
        files = 'task_train = "labelled.jsonl"\ntask_test = "labelled-test.jsonl"\n'
        settings = "[evaluate_task]\nseeds = 2\nepochs = 1\nmax_train_texts = 16\n\n"
        change(path, "[data]\n", f"[data]\n{files}")
        change(path, "[tune]", f"{settings}[tune]")
    return path


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def table(path: Path, rows: list[str]) -> None:
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{row}\n" for row in rows))


def change(path: Path, old: str, new: str) -> None:
    """Change a file's text."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
