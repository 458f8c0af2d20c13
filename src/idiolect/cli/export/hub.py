"""`idiolect export hub`: upload a run's model with its model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idiolect.cli.refusals import refuse_unused

__all__ = ["hub"]


def hub(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    repo: Annotated[str, typer.Argument(help="The name on the hub: owner/name.")],
    dry_run: Annotated[
        Path | None,
        typer.Option(help="Write the files into this new folder instead of uploading."),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="Stage of the model: tune, plain.tune, pretrain, distill, extend; by default "
            "the one that the index uses."
        ),
    ] = None,
    license_id: Annotated[
        str | None,
        typer.Option(
            "--license", help="The hub's identifier of the licence; by default the base's."
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; by default private.")
    ] = False,
) -> None:
    """Upload a model of a run to the Hugging Face hub, with a generated model card.

    The card names the base and its licence, new tokens, checks and metrics. New tokens are words of
    your texts: inspect the card with --dry-run first. The access token is taken from HF_TOKEN or
    `hf auth login`.

    Example: [bold]idiolect export hub demo/run me/numpy-words --dry-run card[/bold]
    """
    from idiolect.pipeline.publishing.push_to_hub import prepare_publication, push_to_hub

    if dry_run is not None:
        refuse_unused(context, "--dry-run uploads nothing", "public")
    if dry_run is None:
        address = push_to_hub(run, repo, stage=stage, license_id=license_id, private=not public)
        typer.echo(f"published: {address}")
        return
    found = prepare_publication(run, repo, stage=stage, license_id=license_id)
    found.write(dry_run)
    typer.echo(
        f"{len(found.files)} files, {found.size / 1e6:,.1f} MB, licence {found.license}, of the "
        f"stage {found.stage} in {dry_run}; nothing was uploaded"
    )
