"""Start a training command on several nodes with Ray Train, similar to `torchrun`.

Each process runs the same command, with the rank and the address in the environment, where
`training.distributed` reads them. If a node is lost, all processes are restarted, and the command
resumes its run; so the run's folder must be on a shared disk.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from idiolect.errors import InputError, TrainingError
from idiolect.scale.cluster import connect

__all__ = ["launch_training"]

_RESTARTS = 3


def launch_training(command: Sequence[str], address: str, *, workers: int, gpus: float = 0) -> None:
    """Run a training command in several processes of a cluster, and wait until it ends.

    Args:
        command: The arguments of `idiolect`, such as `["pretrain", "gpt2", "corpus.jsonl", …]`.
        address: Address of the cluster; see `connect`.
        workers: Number of processes.
        gpus: GPUs per process; with 0, processes run on CPUs.

    Raises:
        InputError: No command, or fewer than one process.
        TrainingError: The command failed in a process, after restarts.
    """
    if not command or workers < 1:
        raise InputError("nothing to launch", hint="idiolect launch --workers 2 -- pretrain …")
    connect(address)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    resources = {"CPU": 1.0} | ({"GPU": gpus} if gpus else {})
    try:
        with tempfile.TemporaryDirectory(prefix="idiolect-") as records:  # Ray's; unused
            trainer: Any = DataParallelTrainer(
                _train,
                train_loop_config={"command": list(command), "folder": os.getcwd()},
                scaling_config=ScalingConfig(
                    num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources
                ),
                run_config=RunConfig(
                    storage_path=records, failure_config=FailureConfig(max_failures=_RESTARTS)
                ),
            )
            trainer.fit()
    except Exception as error:  # Ray wraps the errors of processes in its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        problem = lines[-1].removeprefix("RuntimeError: ") if lines else type(error).__name__
        raise TrainingError(
            f"training failed on the cluster: {problem}",
            hint="run the command again to resume",
        ) from error


def _train(config: dict[str, Any]) -> None:
    """Run the command in a subprocess, with the rank of this worker in its environment."""
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    context = ray.train.get_context()
    host, port = broadcast_from_rank_zero(_free_address())
    ranks = {
        "RANK": context.get_world_rank(),
        "WORLD_SIZE": context.get_world_size(),
        "LOCAL_RANK": context.get_local_rank(),
        "LOCAL_WORLD_SIZE": context.get_local_world_size(),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
    }
    run = subprocess.Popen(
        [sys.executable, "-m", "idiolect", *config["command"]],
        env={**os.environ, **{name: str(value) for name, value in ranks.items()}},
        cwd=config["folder"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, errors = run.communicate()
    finally:
        run.kill()
    if run.returncode:
        last = errors.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(last[0].removeprefix("idiolect: "))


def _free_address() -> tuple[str, int]:
    """Return the address of this node and a free port."""
    import ray.util

    with socket.socket() as free:
        free.bind(("", 0))
        return ray.util.get_node_ip_address(), int(free.getsockname()[1])
