"""Training from scratch by model size: tokens per second, and share of the matrix rate.

    python benchmarks/pretraining.py TOKENIZER TEXTS [--threads 2]

Llama shapes of growing size train on real text with `idiolect pretrain`'s own loop. A step costs
six operations per weight and token (Kaplan et al. 2020, 2001.08361), the output map included; the
machine's rate is that of a large float32 (on an accelerator, bfloat16) matrix product.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from idiolect.models.language_model import LanguageModel
from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig

SHAPES = ((256, 4), (384, 6), (512, 8))
STEPS = 4


def matrix_rate(device: str) -> float:
    """Return operations per second of a large matrix product."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    size = 2048 if device == "cpu" else 8192
    left, right = torch.rand(2, size, size, device=device).to(dtype)
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        product = left @ right
        product[0, 0].item()
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / statistics.median(times)


def settings(width: int, layers: int) -> dict[str, object]:
    return {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": width * 8 // 3 // 16 * 16,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenizer")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer.load(arguments.tokenizer)
    texts = list(itertools.islice(Corpus(arguments.texts), 50))
    peak = matrix_rate(device)
    table = Table(title=f"{device}, {arguments.threads} threads: {peak / 1e9:,.0f} GFLOP/s")
    for name in ("width × layers", "weights", "tokens/s", "GFLOP/s", "share"):
        table.add_column(name, justify="right")
    for width, layers in SHAPES:
        model = LanguageModel.new(settings(width, layers), tokenizer)
        model.network.to(device)
        weights = sum(parameter.numel() for parameter in model.network.parameters())
        with tempfile.TemporaryDirectory() as scratch:
            pretrain(
                model,
                Corpus.from_texts(texts),
                output_dir=scratch,
                steps=STEPS,
                train="all",
                unfreeze_original_rows=True,
                config=TrainingConfig(max_length=512, batch_size=8, precision="fp32"),
            )
            lines = (Path(scratch) / "metrics.jsonl").read_text().splitlines()
        rate = statistics.median(json.loads(line)["tokens_per_second"] for line in lines[1:])
        done = 6 * weights * rate
        table.add_row(
            f"{width} × {layers}",
            f"{weights / 1e6:.1f} M",
            f"{rate:,.0f}",
            f"{done / 1e9:,.0f}",
            f"{done / peak:.0%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
