"""The commands of `idiolect export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from idiolect.cli.export.hub import hub
from idiolect.cli.refusals import refuse_existing_model
from idiolect.errors import InputError

__all__ = ["app", "gguf", "onnx", "table"]

app = typer.Typer(
    help="Export a model for other programs: llama.cpp, ONNX runtimes, a plain array, or the hub.",
    no_args_is_help=True,
)
app.command("hub")(hub)

_MODEL_MARKS = ("config.json",)
"""Files that a model has, and an export has not, which may be written again."""
_Model = Annotated[str, typer.Argument(help="The model: a directory, a hub id or a package's.")]
_Folder = Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")]


@app.command("table")
def table(
    model: _Model,
    out: _Folder,
    layers: Annotated[
        int | None,
        typer.Option(help="0: make a static encoder from the model first.", min=0, max=0),
    ] = None,
) -> None:
    """Write a static encoder as a NumPy array and a tokenizer, for any other program.

    OUT/embeddings.npy has a row for each id of OUT/tokenizer.json. The vector of a text is the mean
    of the rows of its ids, without special tokens, scaled to unit length.

    Example: [bold]idiolect export table ./gpt2 --layers 0 -o table[/bold]
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.export.table_export import export_table

    refuse_existing_model(out, _MODEL_MARKS)
    encoder = Encoder.load(model)
    if layers is not None:
        encoder = encoder.with_changes(layers=layers)
    export_table(encoder, out)
    scaled = ", scaled to length one" if encoder.normalize else ""
    typer.echo(
        f"{len(encoder.model.tokenizer):,} rows of {encoder.dimensions} dimensions in "
        f"{out / 'embeddings.npy'}; a text's vector is the mean of its ids' rows{scaled}"
    )


@app.command("gguf")
def gguf(
    model: _Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    precision: Annotated[
        Literal["f32", "f16", "q8_0"], typer.Option(help="Storage format of matrices.")
    ] = "f16",
) -> None:
    """Write a language model as one GGUF file, for llama.cpp and programs built on it.

    New tokens must have been added by the method `merges`; others would be tokenized differently,
    and are rejected. The file is read back and compared before it is renamed to OUT.

    Example: [bold]idiolect export gguf runs/adapted/model -o model.gguf --precision q8_0[/bold]
    """
    from idiolect.models.gguf.gguf_export import export_gguf
    from idiolect.models.language_model import LanguageModel

    if out.exists() and out.resolve() == Path(model).resolve():
        raise InputError(f"{out} is the model itself", hint="choose another --out")
    loaded = LanguageModel.load(model)
    export_gguf(loaded, out, precision=precision)
    size = out.stat().st_size / 1e6
    typer.echo(f"{loaded.network.config.vocab_size:,} tokens, {size:,.0f} MB in {out}")


@app.command("onnx")
def onnx(model: _Model, out: _Folder) -> None:
    """Write an encoder as an ONNX graph with its tokenizer. Needs the extra `onnx`.

    The graph takes input_ids and attention_mask, and returns the vectors.

    Example: [bold]idiolect export onnx ./gpt2 -o encoder-onnx[/bold]
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.export.onnx_export import export_onnx

    refuse_existing_model(out, _MODEL_MARKS)
    encoder = Encoder.load(model)
    error = export_onnx(encoder, out)
    typer.echo(
        f"vectors of {encoder.dimensions} dimensions from {out / 'model.onnx'}; they differ from "
        f"the encoder's by at most {error:.0e}"
    )
