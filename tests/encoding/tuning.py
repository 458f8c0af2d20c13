"""Small runs of `tune`, also in separate processes that can be killed."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from tokenizers.normalizers import Replace, Sequence

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.mining import Mining
from idiolect.encoding.pairs import Pair
from idiolect.encoding.tune import tune
from idiolect.training.training_config import TrainingConfig
from training import models

PLAN = TrainingConfig(
    batch_size=8, micro_batch_size=3, learning_rate=5e-3, min_lr_ratio=0.0, save_steps=4, seed=2
)
STEPS = 14

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["encoding.tuning", "torch._dynamo", "numpy.random", "rich.status"])


def encoder(dropout: float = 0.1, **options: Any) -> Encoder:
    fields = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return Encoder(models.model("bert", **fields), **options)


def teacher(**options: Any) -> Encoder:
    """An encoder without the new words, which reads each of them as two old ones."""
    model = models.model("bert", grown=False)
    pieces = [Replace(new, f"w{n} w{n + 6}") for n, new in enumerate(models.NEW)]
    model.tokenizer.engine.normalizer = Sequence(pieces)
    return Encoder(model, **options)


def pupil(**options: Any) -> Encoder:
    """The same encoder with the new words, each with a random row."""
    return Encoder(models.model("bert"), **options)


def pairs(count: int = 24) -> list[Pair]:
    """Texts and their words in another order, so that a bag of words could match them."""
    texts = models.texts(count, seed=8)
    return [Pair(text, " ".join(sorted(text.split()))) for text in texts]


def run(out: Path, **options: Any) -> Encoder:
    """Use all options: mined negatives, cached gradients, several widths, adapters, dropout."""
    usual: dict[str, Any] = {
        "steps": STEPS,
        "train": "rows+lora",
        "mining": Mining(count=2, pool=5),
        "corpus": models.texts(30, seed=9),
        "dimensions": (8,),
        "config": PLAN,
    }
    return tune(encoder(), pairs(), output_dir=out, **usual | options)


def outcome(out: Path) -> dict[str, bytes]:
    """The files of a run that must not depend on how often it was interrupted."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    own = [p for p in files if p.name not in ("metrics.jsonl", "run.json")]
    kept = [p for p in own if "checkpoint-" not in str(p) or f"{STEPS:08}" in str(p)]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}
