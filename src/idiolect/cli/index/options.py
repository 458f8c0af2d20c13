"""Arguments and options of the commands on indexes, and how they are resolved.

The folder of a pipeline run can be given for an index or for an encoder, and means those of the
run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idiolect.errors import InputError
from idiolect.search.index_location import RUN_INDEX, index_folder

if TYPE_CHECKING:
    from idiolect.search.index import Index

__all__ = [
    "EncoderOption",
    "FilterOption",
    "IndexArgument",
    "JsonOption",
    "NamespaceOption",
    "check_namespace",
    "encoder_location",
    "open_index",
    "shown_size",
]

IndexArgument = Annotated[
    Path,
    typer.Argument(help="Index folder, or the folder of a run with one.", callback=index_folder),
]
NamespaceOption = Annotated[str, typer.Option(help="Namespace within the index.")]
FilterOption = Annotated[
    str | None,
    typer.Option(help="""Metadata filter, such as '{"price": {"$lt": 50}, "brand": "acme"}'"""),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def encoder_location(encoder: str | None) -> str | None:
    """Return the location of an encoder; for the folder of a run, that of its encoder.

    Raises:
        InputError: the run has no encoder yet.
    """
    if encoder is None or not (Path(encoder) / RUN_INDEX.parts[0]).is_dir():
        return encoder
    from idiolect.pipeline.stages.index_stage import index_encoder

    run = Path(encoder)
    if (run / RUN_INDEX).is_dir():
        return str(index_encoder(run))
    tuned = run / RUN_INDEX.parts[0] / "tune" / "model"
    if not tuned.is_dir():
        raise InputError(f"the run {run} has no encoder yet", hint="`idiolect run` resumes it")
    return str(tuned)


EncoderOption = Annotated[
    str | None,
    typer.Option(
        help="Encoder: a directory, a name, a hub id, or the folder of a run. Default: the one that"
        " the index names.",
        callback=encoder_location,
    ),
]


def open_index(folder: Path, encoder: str | None = None, *, background: bool = False) -> Index:
    """Open an index for one command.

    Args:
        folder: the folder of the index.
        encoder: the location of its encoder; by default the one that the index names.
        background: whether merges may start while the command runs.
    """
    from idiolect.search.index import Index
    from idiolect.search.index_encoder import RELATIVE_LOCATION
    from idiolect.search.store.store import Store

    store = Store.open(folder, background=background)
    in_run = folder.parts[-3:] == RUN_INDEX.parts
    if in_run and encoder is None and RELATIVE_LOCATION not in store.settings:
        # Earlier versions stored a path that may be relative to the folder of `idiolect run`.
        encoder = encoder_location(str(folder.parents[2]))
    return Index(store, encoder)


def check_namespace(index: Index, namespace: str) -> None:
    """Check that a namespace exists.

    Raises:
        InputError: the namespace does not exist; the hint is a similar name.
    """
    from idiolect.text.suggestions import did_you_mean

    names = index.store.namespaces()
    if namespace and namespace not in names:
        known = [name or "the default one" for name in names]
        raise InputError(
            f"the index has no namespace {namespace!r}", hint=did_you_mean(namespace, known)
        )


def shown_size(count: int | None) -> str:
    """Return a number of bytes in readable form."""
    from rich.filesize import decimal

    return "size unknown" if count is None else decimal(count)
