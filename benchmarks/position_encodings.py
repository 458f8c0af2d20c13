"""Position encodings: train the same small causal model with each, and read longer texts with it.

    python benchmarks/position_encodings.py OUT [--steps 400] [--length 64]

Each model is trained on rows of `--length` tokens of WikiText-2's validation text (by a byte-level
BPE of it) and scored on its test text in rows of 1, 2 and 4 times that length: bits per byte over
all tokens, and over the second half of each row, which is what longer rows add. A table of learned
positions ends at the trained length, so there is nothing to report beyond it.

OUT/positions.json holds the table, and OUT/positions.png the plot. A run that was stopped continues
with the next encoding. The loop is the benchmark's own, since no family of published models has all
these encodings.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from idiolect.nn.config import TransformerConfig
from idiolect.nn.transformer import Transformer
from idiolect.text.tokenizers import bpe

DATA = Path(os.environ.get("IDIOLECT_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
ENCODINGS: dict[str, dict[str, Any]] = {
    "none": {"position": "none"},
    "learned": {"position": "learned"},
    "sinusoidal": {"position": "sinusoidal"},
    "Shaw": {"position": "shaw", "relative_buckets": 33},
    "T5": {"position": "buckets", "relative_buckets": 32, "relative_distance": 64},
    "rotary": {"position": "rotary"},
    "ALiBi": {"position": "alibi"},
    "TUPE": {"position": "untied", "relative_buckets": 32, "relative_distance": 64},
}
ENDS = ("learned", "TUPE")
"""Encodings with a table, which ends at the trained length."""


def text_of(name: str) -> str:
    """Return a part of WikiText-2."""
    return gzip.decompress((DATA / "wikitext-2" / f"{name}.txt.gz").read_bytes()).decode()


def network(
    settings: dict[str, Any], vocab_size: int, length: int, width: int, layers: int
) -> Transformer:
    """Build the model with one encoding."""
    made = Transformer(
        TransformerConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            num_attention_heads=4,
            intermediate_size=4 * width,
            num_decoder_layers=layers,
            max_position_embeddings=length,
            # Sinusoids are large beside new embeddings, which the paper therefore scales.
            embedding_scale=width**0.5 if settings["position"] == "sinusoidal" else 1.0,
            **settings,
        )
    )
    made.init_weights(0)
    return made


def train(made: Transformer, ids: torch.Tensor, *, length: int, steps: int, rows: int) -> float:
    """Train on random rows, the same for each encoding; return the seconds of the processor."""
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(0)
    started = time.process_time()
    made.train()
    for step in range(steps):
        starts = torch.randint(0, len(ids) - length - 1, (rows,), generator=generator)
        batch = torch.stack([ids[start : start + length + 1] for start in starts.tolist()])
        logits = made(batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        warm = min(1.0, (step + 1) / 40)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
    return time.process_time() - started


@torch.inference_mode()
def score(made: Transformer, ids: torch.Tensor, length: int, bits: float) -> tuple[float, float]:
    """Return bits per byte over whole rows, and over their second halves."""
    made.eval()
    count = (len(ids) - 1) // length
    inputs = ids[: count * length].view(count, length)
    targets = ids[1 : count * length + 1].view(count, length)
    losses = []
    for start in range(0, count, 16):
        logits = made(inputs[start : start + 16]).logits
        part = targets[start : start + 16]
        losses.append(F.cross_entropy(logits.mT, part, reduction="none"))
    found = torch.cat(losses)
    return float(found.mean()) * bits, float(found[:, length // 2 :].mean()) * bits


def plot(table: dict[str, Any], length: int, path: Path) -> None:
    """Draw bits per byte by length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, found) in enumerate(table.items()):
        points = [(int(n), both[0]) for n, both in found["bits per byte"].items()]
        axes.plot(*zip(*points, strict=True), marker="osD^vP*X"[number % 8], label=name)
    axes.set_xscale("log", base=2)
    lengths = [length, 2 * length, 4 * length]
    axes.set_xticks(lengths, [f"{n}\n({n // length}×)" for n in lengths])
    axes.set_xlabel("tokens a row (times the trained length)")
    axes.set_ylabel("bits per byte, test text")
    axes.legend(ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Train and score each encoding; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab-size", type=int, default=2000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    known = given.out / "positions.json"
    table: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    text, held_out = text_of("valid"), text_of("test")[:120_000]
    tokenizer = bpe.train([text], given.vocab_size)
    ids = torch.tensor(tokenizer.encode(text))
    valid = torch.tensor(tokenizer.encode(held_out))
    bits = len(valid) / len(held_out.encode()) / math.log(2)
    for name, settings in ENCODINGS.items():
        if name in table:
            continue
        made = network(settings, len(tokenizer), given.length, given.width, given.layers)
        options = {"length": given.length, "steps": given.steps, "rows": given.rows}
        seconds = train(made, ids, **options)
        lengths = [given.length] if name in ENDS else [given.length * n for n in (1, 2, 4)]
        table[name] = {
            "bits per byte": {str(n): score(made, valid, n, bits) for n in lengths},
            "parameters": sum(p.numel() for p in made.parameters()),
            "seconds of training": round(seconds),
        }
        print(name, json.dumps(table[name]), flush=True)
        known.write_text(json.dumps(table, indent=1))
    plot(table, given.length, given.out / "positions.png")


if __name__ == "__main__":
    main()
