"""`idiolect evaluate`: how good a model is, in tables for people and JSON for programs."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idiolect.cli import ranking

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["app", "lm"]

app = typer.Typer(help="Measure models.", no_args_is_help=True)
app.command("search")(ranking.evaluate_search)


@app.callback()
def _group() -> None:
    """Measure models."""


@app.command()
def lm(
    model: Annotated[str, typer.Argument(help="The model: a directory or a hub id.")],
    base: Annotated[str, typer.Option(help="The model it came from.")],
    domain: Annotated[
        str, typer.Option(help="Text of the domain, kept out of training: file, folder or glob.")
    ],
    general: Annotated[
        str | None, typer.Option(help="Other text, to see what was forgotten.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="Field that holds the text; may be given again.")
    ] = None,
    documents: Annotated[int, typer.Option(help="Documents to read of each.", min=1)] = 500,
    out: Annotated[Path | None, typer.Option(help="Also write the figures here, as JSON.")] = None,
) -> None:
    """Bits per byte before and after, use of the new terms, and what was forgotten.

    Both models read the same windows of the same documents, each from the start token alone.

    Example: idiolect evaluate lm runs/adapted --base gpt2 --domain heldout.jsonl --general wiki.txt
    """
    from rich.console import Console

    from idiolect.models.language_model import LanguageModel
    from idiolect.text.corpus import Corpus
    from idiolect.text.files import write_atomic
    from idiolect.training.text_evaluation import compare

    console = Console()
    with console.status("loading the models"):
        before, after = LanguageModel.load(base), LanguageModel.load(model)
    with console.status("reading"):
        figures = compare(
            before,
            after,
            domain=islice(Corpus(domain, field=field), documents),
            general=None if general is None else islice(Corpus(general, field=field), documents),
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, (json.dumps(figures, indent=2) + "\n").encode())
    console.print(_table(figures))


def _table(figures: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title="Language modelling", title_justify="left", caption_justify="left")
    for heading in ("", "before", "after", "change"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    for name in ("domain", "general"):
        if name not in figures:
            continue
        before, after = figures[name]["before"], figures[name]["after"]
        for what, key, digits in (("bits per byte", "bits_per_byte", 4), ("tokens", "tokens", 0)):
            table.add_row(
                f"{name}: {what}",
                f"{before[key]:,.{digits}f}",
                f"{after[key]:,.{digits}f}",
                f"{after[key] / max(before[key], 1e-9) - 1:+.1%}",
            )
    use = figures.get("terms")
    if use and use["occurrences"]:
        places, terms = max(use["occurrences"], 1), max(use["terms"], 1)
        table.add_section()
        table.add_row("new tokens, where they stand", "", f"{use['occurrences']:,}", "")
        table.add_row("  ranked first", "", f"{use['first'] / places:.1%}", "")
        table.add_row("  among the first ten", "", f"{use['top_ten'] / places:.1%}", "")
        table.add_row(
            "new tokens ranked first somewhere", "", f"{use['terms_first'] / terms:.1%}", ""
        )
    if "forgetting" in figures:
        lost = figures["forgetting"]
        table.add_section()
        table.add_row(
            "without terms: KL from before, bits a token", "", f"{lost['divergence']:.4f}", ""
        )
        table.add_row("without terms: same token first", "", f"{lost['same_first']:.1%}", "")
    table.caption = f"windows of at most {figures['window']} characters, each from the start token"
    return table
