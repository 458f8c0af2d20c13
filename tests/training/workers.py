"""The process that `torchrun` starts in `test_distributed`: one run of each kind, and of rankers.

Usage: torchrun --nproc-per-node 2 workers.py FOLDER STEPS
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from idiolect.text.corpus import Corpus
from idiolect.training.loop import Trainer
from idiolect.training.objectives.causal import Causal
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from training import models, trainer_workers

MODES = ("rows", "rows+lora", "body", "all")
PLAN = TrainingConfig(
    max_length=32,
    batch_size=4,
    micro_batch_size=1,
    learning_rate=1e-2,
    weight_decay=0.1,
    save_steps=1000,
)


def train(out: Path, steps: int, mode: Any, *, tied: bool = True, sharded: bool = False) -> None:
    model = models.model("llama", tie_word_embeddings=tied)
    corpus = Corpus.from_texts(models.texts())
    pretrain(model, corpus, output_dir=out, steps=steps, train=mode, sharded=sharded, config=PLAN)
    # In the end every process has the same whole model.
    theirs = models.fingerprint(torch.cat([p.flatten() for p in model.network.parameters()]))
    if dist.is_initialized():
        everyone: list[str] = [""] * dist.get_world_size()
        dist.all_gather_object(everyone, theirs)
        assert len(set(everyone)) == 1


def _check_parts(trainer: Trainer) -> None:
    """Check that this process holds half of each matrix, including the frozen rows."""
    for name, parameter in trainer.network.named_parameters():
        assert isinstance(parameter, torch.distributed.tensor.DTensor), name
        here, whole = parameter.to_local().shape[0], parameter.shape[0]
        assert abs(2 * here - whole) <= 1, name


def main(folder: Path, steps: int) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    usual_run = Trainer.run
    for mode in MODES:
        train(folder / f"plain {mode}", steps, mode)

    def checked(self: Trainer, **options: bool) -> None:
        _check_parts(self)
        usual_run(self, **options)

    Trainer.run = checked  # type: ignore[method-assign]
    for mode in MODES:
        for tied in (True, False):
            train(folder / f"sharded {mode} {tied}", steps, mode, tied=tied, sharded=True)

    # A signal to one process stops all of them after the same step; then they resume.
    usual_loss, calls = Causal.loss, 0

    def signalled(self: Causal, network: Any, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5 and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return usual_loss(self, network, batch)

    Causal.loss = signalled  # type: ignore[method-assign]
    try:
        train(folder / "stopped", steps, "all", sharded=True)
    except SystemExit:
        (folder / f"stopped by {dist.get_rank()}").touch()
    train(folder / "stopped", steps, "all", sharded=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer_workers.train(Path(sys.argv[1]) / "two")
    main(Path(sys.argv[1]), int(sys.argv[2]))
    # What counts is saved. Once, on a loaded machine, PyTorch's threads aborted a process while the
    # interpreter ended ("terminate called without an active exception"); this leaves without it.
    dist.destroy_process_group()
    os._exit(0)
