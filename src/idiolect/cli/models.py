"""`idiolect models` and `idiolect doctor`: what the package knows and what this machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from idiolect.models.family import Family

__all__ = ["doctor", "models"]

_OPTIONAL = {"tensorboard": "tensorboard"}
"""Packages that some commands use where they are installed, and the extra that brings each."""


def models(
    json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """List the model families that can be loaded, with what each supports.

    Example: idiolect models
    """
    from idiolect.models.registry import FAMILIES

    rows = [_describe(family) for family in FAMILIES.values()]
    if json:
        from json import dumps

        typer.echo(dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Model families", title_justify="left", caption_justify="left")
    for heading in ("family", "model_type", "reads", "positions", "heads", "paper"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("family", "model_type"))
    for row in rows:
        table.add_row(
            *(str(row[k]) for k in ("title", "model_type", "reads", "positions")),
            ", ".join(row["heads"]),
            str(row["paper"]),
        )
    table.caption = (
        "Every family loads and saves the Hugging Face layout: config.json, safetensors in one "
        "file or several, older .bin files through a loader that executes nothing."
    )
    Console().print(table)


def _describe(family: Family) -> dict[str, Any]:
    """Say what a family supports, from its own data and not from a list kept beside it."""
    config = family.config({"vocab_size": 1000})
    both = config.encoder_layers and config.decoder_layers
    reads = "both ways" if config.encoder_layers else "left to right"
    heads = dict.fromkeys(task for a in family.architectures.values() for task in a.tasks)
    return {
        "title": family.title,
        "model_type": family.model_type,
        "reads": "encoder and decoder" if both else reads,
        "positions": config.position,
        "heads": [task.replace("_", " ") for task in heads],
        "classes": list(family.architectures),
        "paper": family.paper,
    }


def doctor() -> None:
    """Check this machine: versions, devices, number formats that run fast, optional packages.

    Example: idiolect doctor
    """
    import os
    import platform
    from importlib import metadata

    from rich.console import Console
    from rich.table import Table

    from idiolect import __version__

    table = Table(title="This machine", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("idiolect", __version__)
    table.add_row("python", f"{platform.python_version()} on {platform.system()}")
    table.add_row("processor cores", str(os.cpu_count()))
    for package in ("torch", "tokenizers", "safetensors", "huggingface_hub", "numpy"):
        table.add_row(package, metadata.version(package))
    for package, extra in _OPTIONAL.items():
        try:
            table.add_row(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            table.add_row(package, f"not installed: pip install 'idiolect[{extra}]'")
    for name, value in _device_rows():
        table.add_row(name, value)
    Console().print(table)


def _device_rows() -> list[tuple[str, str]]:
    """What torch finds, and a measurement: matrix products a second in each number format."""
    import time

    import torch

    rows = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            rows.append((f"accelerator {index}", f"{properties.name}, {memory:.0f} GiB"))
    else:
        rows.append(("accelerator", "none; everything runs on the processor"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(1024, 1024, dtype=dtype, device=device)
        seconds = []
        for _ in range(4):
            begin = time.perf_counter()
            float(torch.mm(square, square)[0, 0])
            seconds.append(time.perf_counter() - begin)
        rate = 2 * 1024**3 / min(seconds) / 1e9
        rows.append((f"{str(dtype).removeprefix('torch.')} products", f"{rate:,.1f} GFLOP/s"))
    return rows
