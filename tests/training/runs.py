"""Training runs in separate processes, so that they can be killed.

A fork server has imported everything already, so a run starts within milliseconds.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from idiolect.errors import IdiolectError
from idiolect.models.language_model import LanguageModel
from idiolect.text.corpus import Corpus
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from training import models

PLAN = TrainingConfig(
    max_length=32, batch_size=4, micro_batch_size=2, learning_rate=1e-2, save_steps=4
)
STEPS = 20

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["training.runs", "torch._dynamo", "numpy.random", "rich.status"])


def run(
    out: Path, *, model: Path | None = None, largest_file: int | None = None, **options: Any
) -> None:
    """Train a small model with dropout, adapters and accumulation; errors end with status 2.

    Args:
        out: The run's folder.
        model: Train this saved model instead.
        largest_file: Bytes that a file may have.
        options: Arguments of `pretrain` that differ.
    """
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    trained = (
        LanguageModel.load(model) if model else models.model("gpt2", tie_word_embeddings=False)
    )
    settings: dict[str, Any] = {"steps": STEPS, "train": "rows+lora", "config": PLAN}
    try:
        pretrain(trained, Corpus.from_texts(models.texts()), output_dir=out, **settings | options)
    except IdiolectError as error:
        (out.parent / "error.txt").write_text(str(error))
        sys.exit(2)


def start(out: Path, **options: Any) -> BaseProcess:
    process = _FORKS.Process(target=run, args=(out,), kwargs=options)
    process.start()
    return process


def finish(process: BaseProcess) -> int:
    """Wait for a process and return its exit status."""
    process.join(120)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def wait_for(condition: Callable[[], bool], process: BaseProcess) -> None:
    while not condition():
        assert process.is_alive(), "the run ended too soon"
        time.sleep(0.002)


def outcome(out: Path) -> dict[str, bytes]:
    """The files of a run that must not depend on how often it was interrupted."""
    last = out / f"checkpoint-{STEPS:08}"
    files = [out / "model" / "model.safetensors", *last.iterdir(), *(out / "adapter").iterdir()]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}
