"""`idiolect translate run`: translate lines, score them against references, plot an alignment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idiolect.cli.refusals import refuse_length_penalty
from idiolect.cli.training_options import local_device
from idiolect.errors import InputError

if TYPE_CHECKING:
    from idiolect.tasks.translator import Translator

__all__ = ["run"]

_LONGEST = 1 << 20
"""Maximum bytes of a line."""


def run(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model: a directory or a hub id.")],
    source: Annotated[
        Path | None, typer.Argument(help="File with one text per line. Default: standard input.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Translate only this text.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the translations to this file.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="File with a reference translation per line: print BLEU.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot the alignment of the first text to this file.")
    ] = None,
    translation: Annotated[
        str | None, typer.Option(help="With --plot: align this translation, not the model's own.")
    ] = None,
    num_beams: Annotated[int, typer.Option(help="Beams; 1 is greedy.", min=1, max=1000)] = 5,
    length_penalty: Annotated[
        float,
        typer.Option(help="Beam scores are divided by the length to this power.", min=-10, max=10),
    ] = 1.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Maximum tokens. Default: 1.5 times the source.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Texts per batch.", min=1, max=100_000)] = 64,
) -> None:
    """Translate texts; an empty line stays empty.

    BLEU is sacrebleu's, with its signature: cased, and lower-cased.

    Example: [bold]idiolect translate run runs/de-en/model test.de --reference test.en -o
    test.out[/bold]

    An alignment: [bold]idiolect translate run runs/de-en/model --text "ein Hund rennt ." --plot
    alignment.png[/bold]
    """
    from idiolect.models.language_model import LanguageModel
    from idiolect.tasks.bleu import bleu
    from idiolect.tasks.translator import Translator
    from idiolect.text.files import write_atomic

    refuse_length_penalty(context, num_beams)
    if translation is not None and plot is None:
        raise InputError("--translation is for --plot", hint="add --plot FILE")
    if text is not None and source is not None:
        raise InputError(f"both --text and the file {source}", hint="give one of them")
    texts = [text] if text is not None else _read(source)
    references = None if reference is None else _read(reference)
    if references is not None and len(references) != len(texts):
        raise InputError(
            f"{reference} has {len(references):,} lines for {len(texts):,} texts",
            hint="line by line they must be translations of one another",
        )
    if not any(line.strip() for line in texts):
        raise InputError("there is no text to translate", hint="name a file, or use --text")
    translator = Translator(
        LanguageModel.load(model, device=local_device()),
        num_beams=num_beams,
        length_penalty=length_penalty,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    if plot is not None:
        _plot(translator, next(line for line in texts if line.strip()), translation, plot)
    found = translator.translate(texts, progress=True)
    if empty := [number for number, line in enumerate(texts, 1) if not line.strip()]:
        first = ", ".join(map(str, empty[:3]))
        typer.echo(f"{len(empty):,} empty lines stay empty (the first: {first})", err=True)
    lines = "".join(" ".join(line.split("\n")) + "\n" for line in found)
    if out is None:
        sys.stdout.write(lines)
    else:
        write_atomic(out, lines.encode())
        typer.echo(f"{len(found):,} translations are in {out}", err=True)
    if references is not None:
        for lowercase in (False, True):
            typer.echo(bleu(found, references, lowercase=lowercase), err=out is None)


def _read(path: Path | None) -> list[str]:
    from idiolect.text.record_types.text_lines import read_all_lines

    lines = sys.stdin if path is None else read_all_lines(path, _LONGEST)
    return [line.strip() for line in lines]


def _plot(translator: Translator, text: str, translation: str | None, path: Path) -> None:
    from idiolect.tasks.alignment_plot import plot_alignment

    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"{path} is no picture", hint="name it .png, .svg or .pdf")
    plot_alignment(translator.align(text, translation), path)
    typer.echo(f"the alignment is in {path}", err=True)
