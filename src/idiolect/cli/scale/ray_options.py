"""The option of commands that can run on a Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["RayOption"]

RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Run on a Ray cluster: its address, `auto`, or `local` to start one here. Inputs and"
        " outputs may then be URIs such as s3://bucket/folder.",
    ),
]
