"""`idiolect index build` and `add`: index the records of files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idiolect.cli.index.contents import overview
from idiolect.cli.index.options import (
    EncoderOption,
    IndexArgument,
    NamespaceOption,
    open_index,
)
from idiolect.cli.refusals import refuse_unused
from idiolect.cli.scale.ray_options import RayOption
from idiolect.cli.text_options import MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import EncodingPrecisionOption, given
from idiolect.errors import InputError
from idiolect.search.index_location import is_index
from idiolect.text.skipped import MAX_UNREADABLE, Skipped

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

    from idiolect.search.items import Item

__all__ = ["add", "build"]

_Sources = Annotated[
    list[Path], typer.Argument(help="Files or folders: .jsonl .csv .tsv .parquet, optionally .gz")
]
_Id = Annotated[
    str | None, typer.Option("--id", help="Id field; detected from common names by default.")
]
_Fields = Annotated[
    list[str] | None,
    typer.Option("--field", help="Text field; repeat the option to join several fields."),
]
_Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata", help="Metadata field to store; repeatable. By default all other fields."
    ),
]
_Vectors = Annotated[
    str | None,
    typer.Option(
        help="Precomputed vectors: a field with lists of numbers, or a .npy file with a row for"
        " each record. No encoder is needed."
    ),
]
_SkipInvalid = Annotated[
    bool,
    typer.Option(
        "--skip-invalid-metadata",
        help="Leave out metadata that cannot be stored, such as NaN, instead of stopping.",
    ),
]
_Language = Annotated[
    str | None,
    typer.Option(
        help="Language of the stemmer in lexical search, such as de, or none. Default: en."
    ),
]
_OnDisk = Annotated[
    bool,
    typer.Option(
        "--on-disk",
        help="Keep vectors on disk; memory holds codes of at most 1/16 of their size (1/4 up to 32 "
        "dimensions).",
    ),
]
_Memory = Annotated[
    str | None,
    typer.Option("--memory", help="Memory limit of the process for --on-disk, such as 2GB."),
]
_LabelField = Annotated[
    str | None,
    typer.Option(
        help="Metadata field for --on-disk, such as the category; filters by its values are faster."
    ),
]


def build(
    context: typer.Context,
    index: IndexArgument,
    sources: _Sources,
    encoder: EncoderOption = None,
    vectors: _Vectors = None,
    id_field: _Id = None,
    fields: _Fields = None,
    metadata: _Metadata = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    namespace: NamespaceOption = "",
    dimensions: Annotated[
        int | None, typer.Option(help="Truncate vectors to this size (Matryoshka encoders).", min=1)
    ] = None,
    on_disk: _OnDisk = False,
    memory: _Memory = None,
    label_field: _LabelField = None,
    precision: EncodingPrecisionOption = None,
    language: _Language = None,
    skip_invalid_metadata: _SkipInvalid = False,
    ray: RayOption = None,
) -> None:
    """Build an index from the records of files. Run it again to resume.

    If records share an id, the last one is stored. An encoder computes the vectors, unless the
    records have their own.

    Example: [bold]idiolect index build products-index products.jsonl
    --encoder runs/tuned/model --field title --metadata price --metadata brand[/bold]
    """
    from idiolect.search.index import Index

    if encoder is None and vectors is None and not is_index(index):
        raise InputError(
            "a new index needs vectors",
            hint="add --encoder, which computes them, or --vectors, if the records have their own",
        )
    if encoder is None:
        refuse_unused(context, "it needs --encoder", "precision")
    if not on_disk and not is_index(index):
        refuse_unused(context, "it limits an index --on-disk", "memory")
    report = _Report()
    items = report.items(sources, id_field, fields, metadata, vectors, max_unreadable)
    model: Any = None
    if ray is not None:
        if encoder is None:
            raise InputError("--ray computes vectors on a cluster", hint="add --encoder")
        from idiolect.scale.ray_encoder import RayEncoder

        model = RayEncoder(encoder, ray, **given(precision=precision))
    elif encoder is not None:
        from idiolect.encoding.encoder import Encoder

        model = Encoder.load(encoder, **given(precision=precision))
    with Index.build(
        index,
        model,
        items,
        dimensions=dimensions,
        language=language,
        memory="disk" if on_disk else None,
        memory_limit=memory,
        label_field=label_field,
        namespace=namespace,
        source=encoder,
        progress=True,
        skip_invalid_metadata=skip_invalid_metadata,
        encoding_counts=report.encoded,
    ) as built:
        report.print(built.counts)
        report.console.print(overview(index, built.store.describe()))


def add(
    index: IndexArgument,
    sources: _Sources,
    vectors: _Vectors = None,
    id_field: _Id = None,
    fields: _Fields = None,
    metadata: _Metadata = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    namespace: NamespaceOption = "",
    encoder: EncoderOption = None,
    skip_invalid_metadata: _SkipInvalid = False,
) -> None:
    """Add records, or replace those with the same ids. The last of several with one id is stored.

    The encoder is loaded only if a text is new or has changed.

    Example: [bold]idiolect index add products-index new.jsonl --field title[/bold]
    """
    report = _Report()
    with open_index(index, encoder, background=True) as opened:
        items = report.items(sources, id_field, fields, metadata, vectors, max_unreadable)
        opened.encoding_counts = report.encoded
        counts = opened.add(
            items,
            namespace=namespace,
            progress=True,
            skip_invalid_metadata=skip_invalid_metadata,
        )
        report.print(counts)


class _Report:
    """Reads the records of files, and reports the counts."""

    def __init__(self) -> None:
        from rich.console import Console

        from idiolect.encoding.text_reader import EncodingCounts

        self.console = Console()
        self.encoded = EncodingCounts()  # of all batches; each would log a warning of its own
        self._skipped = Skipped()
        self._began = time.perf_counter()

    def items(
        self,
        sources: Sequence[Path],
        id_field: str | None,
        fields: Sequence[str] | None,
        metadata: Sequence[str] | None,
        vectors: str | None,
        max_unreadable: float,
    ) -> Iterable[Item]:
        """Stream the items."""
        from idiolect.search.item_files import read_items

        return read_items(
            sources,
            id_field=id_field,
            fields=fields or (),
            metadata=metadata,
            vectors=vectors,
            max_unreadable=max_unreadable,
            skipped=self._skipped,
        )

    def print(self, counts: Counter[str]) -> None:
        """Print how many items were written, and what was skipped."""
        self.console.print(
            f"{counts['written']:,} items written, {counts['unchanged']:,} unchanged in"
            f" {time.perf_counter() - self._began:,.1f} s"
        )
        if counts["empty"]:
            self.console.print(
                f"skipped {counts['empty']:,} items: their text has no known word, or their vector"
                " is zero"
            )
        if self.encoded.truncated:
            self.console.print(
                f"{self.encoded.truncated:,} of {self.encoded.texts:,} encoded texts are longer"
                f" than the encoder reads and were truncated; {self.encoded.lost:,} tokens are lost"
            )
        report_skipped(self._skipped)
