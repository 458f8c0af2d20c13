"""The process that `torchrun` starts in `test_tune`: a run shared by all processes.

Usage: torchrun --nproc-per-node 2 workers.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoding import tuning
from idiolect.encoding.mining import Mining
from idiolect.encoding.tune import tune
from idiolect.encoding.tune_on_text import tune_on_text
from idiolect.training.objectives.contrastive_losses import InfoNCE
from idiolect.training.training_config import TrainingConfig
from training import models

PLAN = TrainingConfig(batch_size=6, micro_batch_size=5, learning_rate=5e-3, save_steps=1000)


def train(folder: Path) -> None:
    """Tune on pairs and on text, without dropout, which differs between processes."""
    options: dict[str, Any] = {"steps": 5, "config": PLAN}
    tune(
        tuning.encoder(0.0),
        tuning.pairs(13),
        output_dir=folder / "pairs",
        loss=InfoNCE(bidirectional=True),
        mining=Mining(count=1, pool=4),
        corpus=models.texts(20, seed=9),
        **options,
    )
    tune_on_text(
        tuning.encoder(0.0),
        models.texts(20),
        output_dir=folder / "text",
        objective="tsdae",
        **options,
    )
    tune_on_text(
        tuning.pupil(),
        models.texts(20),
        output_dir=folder / "imitation",
        objective="imitate",
        teacher=tuning.teacher(),
        **options,
    )


if __name__ == "__main__":
    train(Path(sys.argv[1]))
