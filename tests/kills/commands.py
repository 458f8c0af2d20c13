"""What is killed: the commands that write, each with small data of a shop."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.shop import COMMON, KINDS, change, open_shop, write

__all__ = ["COMMANDS", "Kind", "write_data"]


@dataclass(frozen=True)
class Kind:
    """A command that is killed, and what it writes."""

    command: str
    out: str = "out"
    """The file or folder that the command writes."""
    before: str = ""
    """A command that runs undisturbed before it."""


_QUICK = "--precision fp32 --save-steps 3 --batch-size 4"
_VECTORS = "many.jsonl --vectors many.npy"
_EXTEND = "extend model terms.txt -o grown"
_JUDGED = "--documents items.jsonl --queries queries.jsonl --qrels qrels.tsv"


def _words(options: str) -> Kind:
    given = f"-o words.safetensors --dimensions 64 --threads 1 {options}"
    return Kind(f"words train texts.txt {given}", "words.safetensors")


def _align(method: str, data: str) -> Kind:
    return Kind(f"align {method} model {data} -o out --steps 40 {_QUICK}")


def _recommend(model: str) -> Kind:
    return Kind(f"recommend train histories.jsonl -o out --model {model}")


def _pretrain(model: str, options: str, before: str = "") -> Kind:
    given = f"--steps 60 --max-length 32 {options} {_QUICK}"
    return Kind(f"pretrain {model} texts.txt -o out {given}", before=before)


COMMANDS: dict[str, Kind] = {
    "tokenizer train": Kind("tokenizer train texts.txt -o out --vocab-size 290"),
    "extend": Kind(f"{_EXTEND} --general general.txt", "grown"),
    "distill": Kind(
        "distill grown many.jsonl --teacher model -o out --contexts 60 --precision fp32 "
        "--save-steps 3",
        before=_EXTEND,
    ),
    "pretrain": _pretrain("model", "--train all"),
    "pretrain, LoRA": _pretrain("grown", "--train rows+lora", _EXTEND),
    "tune encoder": Kind(
        "tune encoder model pairs.jsonl -o out --documents items.jsonl --document document_id "
        f"--negatives 1 --epochs 8 {_QUICK}"
    ),
    "tune cross-encoder": Kind(f"tune cross-encoder model {_JUDGED} -o out --epochs 4 {_QUICK}"),
    "tune two-tower": Kind(f"tune two-tower model {_JUDGED} -o out --epochs 4 {_QUICK}"),
    "align sft": _align("sft", "chats.jsonl"),
    "align reward": _align("reward", "preferences.jsonl"),
    "align dpo": _align("dpo", "preferences.jsonl"),
    "align grpo": Kind(
        "align grpo model prompts.jsonl --reward regex:a -o out --steps 12 --num-generations 2 "
        f"--max-new-tokens 4 {_QUICK}"
    ),
    "words, skip-gram": _words("--model skipgram --epochs 60"),
    "words, CBOW": _words("--model cbow --epochs 60"),
    "words, n-grams": _words("--model skipgram --min-n 3 --buckets 1000 --epochs 30"),
    "words, GloVe": _words("--model glove --epochs 100"),
    "generate-queries": Kind(
        "generate-queries model labelled.jsonl --field text --max-texts 40 --max-new-tokens 8 "
        "--batch-size 4 -o queries-out.jsonl",
        "queries-out.jsonl",
    ),
    "export, GGUF": Kind("export gguf model -o out.gguf", "out.gguf"),
    "encode": Kind("encode model many.jsonl -o vectors.npy", "vectors.npy"),
    "index build": Kind("index build out many.jsonl --encoder model"),
    "index build, own vectors": Kind(f"index build out {_VECTORS}"),
    "index build, on disk": Kind(f"index build out {_VECTORS} --on-disk"),
    "index add": Kind(
        f"index add out {_VECTORS}", before="index build out few.jsonl --vectors few.npy"
    ),
    "recommend, EASE": _recommend("ease"),
    "recommend, SASRec": _recommend("sasrec --epochs 12"),
    "recommend, GRU4Rec": _recommend("gru4rec --epochs 12"),
    "tasks classify": Kind(
        f"tasks classify train labelled.jsonl --encoder model -o out --epochs 2 {_QUICK}"
    ),
    "translate": Kind(
        "translate train left.txt right.txt -o out --vocab-size 270 --steps 40 --batch-tokens 256 "
        "--architecture shape.json --precision fp32 --save-steps 3"
    ),
    "prompt tune": Kind(
        f"prompt tune model labelled.jsonl -o out --num-virtual-tokens 4 --epochs 2 {_QUICK}"
    ),
    "run": Kind("run idiolect.toml", "run"),
}


def write_data(folder: Path) -> None:
    """Write everything that the commands read."""
    config = open_shop(folder, histories=True)
    change(config, "[pretrain]\nsteps = 4", "[pretrain]\nsteps = 120")
    draw = random.Random(1)
    texts = [" ".join(draw.choices([*COMMON, *KINDS], k=20)) for _ in range(300)]
    (folder / "texts.txt").write_text("\n".join(texts))
    (folder / "terms.txt").write_text("\n".join(KINDS))
    (folder / "left.txt").write_text("\n".join(texts[:80]))
    (folder / "right.txt").write_text("\n".join(text.upper() for text in texts[:80]))
    (folder / "shape.json").write_text('{"model_type": "seq2seq", "hidden_size": 16}')
    many = [
        {"id": f"i{n}", "text": " ".join(draw.choices([*COMMON, *KINDS], k=8)), "price": n % 7}
        for n in range(3000)
    ]
    vectors = np.random.default_rng(0).standard_normal((len(many), 32), dtype=np.float32)
    for name, count in (("many", len(many)), ("few", 500)):
        write(folder / f"{name}.jsonl", many[:count])
        np.save(folder / f"{name}.npy", vectors[:count])
    write(folder / "labelled.jsonl", [{"text": t, "label": t.split()[0]} for t in texts[:60]])
    pairs = [{"prompt": t[:20], "chosen": t[20:40], "rejected": t[40:60]} for t in texts[:60]]
    write(folder / "preferences.jsonl", pairs)
    write(folder / "prompts.jsonl", [{"prompt": pair["prompt"]} for pair in pairs])
    said = ("user", "assistant", "user", "assistant")
    chats = [
        zip(said, (pair["prompt"], pair["chosen"], "and", pair["rejected"]), strict=True)
        for pair in pairs
    ]
    lines = [{"messages": [{"role": r, "content": c} for r, c in chat]} for chat in chats]
    (folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
