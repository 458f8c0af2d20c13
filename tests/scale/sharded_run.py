"""The process that `torchrun` starts in `test_sharded_training`: 20 steps, weights sharded (FSDP2).

Usage: torchrun --nproc-per-node 2 sharded_run.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training import workers

STEPS = 20

if __name__ == "__main__":
    torch.set_num_threads(1)
    workers.train(Path(sys.argv[1]), STEPS, "all", sharded=True)
