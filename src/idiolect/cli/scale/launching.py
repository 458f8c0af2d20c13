"""`idiolect launch`: run a training command in several processes of a Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["launch"]


def launch(
    command: Annotated[
        list[str], typer.Argument(help="The training command and its options, after --.")
    ],
    ray: Annotated[
        str, typer.Option("--ray", metavar="ADDRESS", help="The cluster: its address or `auto`.")
    ] = "auto",
    workers: Annotated[int, typer.Option(help="Number of processes.", min=1, max=100_000)] = 2,
    gpus: Annotated[float, typer.Option(help="GPUs per process.", min=0, max=64)] = 0,
) -> None:
    """Run a training command in several processes of a Ray cluster, as torchrun does on one node.

    The run's folder must be on a disk that all nodes share. If a node is lost, the processes are
    restarted and the command resumes.

    Example: [bold]idiolect launch --ray auto --workers 8 --gpus 1 -- pretrain gpt2 corpus.jsonl
    -o /shared/run --sharded[/bold]
    """
    from idiolect.scale.ray_train import launch_training

    launch_training(command, ray, workers=workers, gpus=gpus)
    typer.echo(f"finished in {workers} processes")
