"""`idiolect evaluate`: evaluate models, as tables or JSON."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idiolect.cli import ranking
from idiolect.cli.answers import judging
from idiolect.cli.generation import harness
from idiolect.cli.text_options import FieldOption, MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import PrecisionOption
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["app", "lm"]

app = typer.Typer(help="Evaluate models.", no_args_is_help=True)
app.command("search")(ranking.evaluate_search)
app.command("answers")(judging.evaluate_answers)
app.command("tasks")(harness.evaluate_tasks)


@app.callback()
def _group() -> None:
    """Evaluate models."""


@app.command()
def lm(
    model: Annotated[str, typer.Argument(help="The model: a directory or a hub id.")],
    base: Annotated[str, typer.Option(help="The model it was adapted from.")],
    domain: Annotated[str, typer.Option(help="Held-out domain text: file, folder or glob.")],
    general: Annotated[
        str | None, typer.Option(help="General text, to measure forgetting.")
    ] = None,
    field: FieldOption = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    documents: Annotated[int, typer.Option(help="Documents to read per text.", min=1)] = 500,
    precision: PrecisionOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write the metrics as JSON.")
    ] = None,
) -> None:
    """Compare a model with its base: bits per byte, use of new tokens, forgetting.

    Both models read the same text windows; each window follows only a start token.

    Example: [bold]idiolect evaluate lm runs/adapted/model --base gpt2 --domain heldout.jsonl
    --general wiki.txt[/bold]
    """
    from rich.console import Console

    from idiolect.models.language_model import LanguageModel
    from idiolect.text.corpus import Corpus
    from idiolect.text.files import write_atomic
    from idiolect.training.progress import status
    from idiolect.training.text_evaluation import compare

    console = Console()
    texts = {
        name: Corpus(source, field, max_unreadable=max_unreadable)
        for name, source in (("domain", domain), ("general", general))
        if source is not None
    }
    with status("loading the models"):
        before, after = LanguageModel.load(base), LanguageModel.load(model)
    with status("reading"):
        figures = compare(
            before,
            after,
            domain=islice(texts["domain"], documents),
            general=islice(texts["general"], documents) if "general" in texts else None,
            precision=precision or "auto",
        )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, (json.dumps(figures, indent=2) + "\n").encode())
    console.print(_table(figures))
    for name, text in texts.items():
        report_skipped(text.skipped, f"the {name} text")


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
        table.add_row("new tokens in the text", "", f"{use['occurrences']:,}", "")
        table.add_row("  ranked first", "", f"{use['first'] / places:.1%}", "")
        table.add_row("  ranked in the top ten", "", f"{use['top_ten'] / places:.1%}", "")
        table.add_row(
            "new tokens ranked first at least once", "", f"{use['terms_first'] / terms:.1%}", ""
        )
    if "forgetting" in figures:
        lost = figures["forgetting"]
        table.add_section()
        table.add_row(
            "without terms: KL from before, bits per token", "", f"{lost['divergence']:.4f}", ""
        )
        table.add_row("without terms: same top token", "", f"{lost['same_first']:.1%}", "")
    table.caption = f"windows of at most {figures['window']} characters, each after a start token"
    return table
