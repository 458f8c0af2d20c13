"""`idiolect audit`: how a tokenizer fares on a corpus, and which of its terms it breaks."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.progress import Progress
    from rich.table import Table

    from idiolect.text.corpus import Corpus
    from idiolect.vocabulary.audit.audit import Audit
    from idiolect.vocabulary.terms import Terms

__all__ = ["audit"]


def audit(
    tokenizer: Annotated[
        str, typer.Argument(help="Tokenizer or checkpoint: a directory, a file or a hub id.")
    ],
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders or globs: .txt .jsonl .csv .tsv .parquet, also .gz"),
    ],
    general: Annotated[
        list[str] | None,
        typer.Option(help="General text: terms are weighted by how typical of the domain they are"),
    ] = None,
    glossary: Annotated[
        Path | None, typer.Option(help="Terms to be taught whatever their counts, one a line.")
    ] = None,
    rows: Annotated[int, typer.Option(help="How many forms to choose, one row each.")] = 5000,
    phrases: Annotated[
        bool, typer.Option(help="Also choose terms that cross pre-token borders.")
    ] = True,
    field: Annotated[
        list[str] | None, typer.Option(help="Field that holds the text; may be given again.")
    ] = None,
    per: Annotated[
        Literal["line", "file"], typer.Option(help="What a document is in .txt files.")
    ] = "line",
    top: Annotated[int, typer.Option(help="Terms to show.")] = 25,
    terms_out: Annotated[
        Path | None, typer.Option("--terms", help="Write the chosen terms as JSON, for `extend`.")
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the whole audit as JSON.")
    ] = None,
    csv_out: Annotated[
        Path | None, typer.Option("--csv", help="Write all candidate terms as CSV.")
    ] = None,
) -> None:
    """Show how a tokenizer fares on a corpus, and which terms it breaks.

    Example: [bold]idiolect audit ./gpt2 products.jsonl --field title --general books/
    --glossary names.txt --terms terms.json[/bold]
    """
    from rich.console import Console

    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.audit import audit as run
    from idiolect.vocabulary.audit.audit_report import write_csv, write_json
    from idiolect.vocabulary.terms import read_glossary

    for path in (terms_out, json_out, csv_out):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"no folder {path.parent} to write to", hint="make it first")
    asked = read_glossary(glossary) if glossary else None
    base = Tokenizer.load(tokenizer)
    corpus = Corpus(sources, field, per=per)
    elsewhere = Corpus(general, field, per=per) if general else None
    began = time.perf_counter()
    with _progress() as progress:
        found = run(
            base,
            _counted(corpus, progress, "domain documents"),
            _counted(elsewhere, progress, "general documents") if elsewhere else None,
            asked,
        )
        terms = found.choose(rows, phrases=phrases)
    seconds = time.perf_counter() - began
    console = Console()
    console.print(_overview(found))
    console.print(_pieces(found))
    console.print(_worst(found))
    console.print(_terms(found, top))
    console.print(_summary(found, terms, seconds))
    for name, read in (("corpus", corpus), ("general text", elsewhere)):
        for reason, count in read.skipped.most_common() if read else ():
            console.print(f"skipped {count:,} records of the {name}: {reason}")
    for left in terms.left_out:
        console.print(f"left out {left.text!r}: {left.reason}", markup=False)
    if terms_out:
        terms.save(terms_out)
    if json_out:
        write_json(found, json_out)
    if csv_out:
        write_csv(found, csv_out)


@contextmanager
def _progress() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} {task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield progress


def _counted(corpus: Corpus, progress: Progress, name: str) -> Iterable[str]:
    task = progress.add_task(name, total=None)
    for document in corpus:
        progress.advance(task)
        yield document


def _overview(found: Audit) -> Table:
    from rich.table import Table

    table = Table(title=f"{found.tokenizer.kind} tokenizer of {len(found.tokenizer):,} ids")
    table.add_column("")
    sides = {"domain": found.statistics}
    if found.general:
        sides["general"] = found.general
    for name in sides:
        table.add_column(name, justify="right")
    columns = [
        (
            f"{s.documents:,}",
            f"{s.words:,}",
            f"{s.tokens:,}",
            f"{s.bytes_per_token:.2f}",
            f"{s.tokens_per_word:.2f}",
            f"{s.unknown:,} ({s.unknown_share:.2%})",
        )
        for s in sides.values()
    ]
    labels = ("documents", "words", "tokens", "bytes a token", "tokens a word", "unknown tokens")
    for label, *cells in zip(labels, *columns, strict=True):
        table.add_row(label, *cells)
    return table


def _pieces(found: Audit) -> Table:
    from rich.table import Table

    table = Table(title="Words by the number of pieces they are cut into")
    counts = found.statistics.pieces
    total = max(sum(counts.values()), 1)
    few = [(str(n), counts.get(n, 0)) for n in range(1, 7)]
    for label, _ in [*few, ("more", 0)]:
        table.add_column(label, justify="right")
    many = total - sum(count for _, count in few)
    table.add_row(*(f"{count / total:.1%}" for _, count in [*few, ("more", many)]))
    return table


def _worst(found: Audit) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Documents with the most tokens a word")
    table.add_column("document", justify="right")
    table.add_column("words", justify="right")
    table.add_column("tokens a word", justify="right")
    table.add_column("begins")
    for document in found.statistics.worst[:5]:
        beginning = Text(" ".join(document.beginning.split())[:36])
        per_word = f"{document.tokens_per_word:.2f}"
        table.add_row(f"{document.index:,}", f"{document.words:,}", per_word, beginning)
    return table


def _terms(found: Audit, top: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    from idiolect.vocabulary.audit.audit_report import spell

    table = Table(title="Terms it breaks, by the tokens that one row for each spelling would save")
    for name in ("term", "pieces now"):
        table.add_column(name, overflow="fold")
    for name in ("spellings", "count", "documents", "saved"):
        table.add_column(name, justify="right")
    odds = found.general is not None
    if odds:
        table.add_column("log-odds", justify="right")
    table.add_column("PMI", justify="right")
    for group in found.groups[: max(top, 0)]:
        first = group.candidates[0]
        cells: list[str | Text] = [
            Text(group.term),
            Text(spell(found.tokenizer, first.pieces)),
            str(len(group.candidates)),
            f"{group.count:,}",
            f"{group.documents:,}",
            f"{group.saved:,}",
        ]
        if odds:
            cells.append("" if first.log_odds is None else f"{first.log_odds:+.1f}")
        cells.append("" if first.pmi is None else f"{first.pmi:.1f}")
        table.add_row(*cells)
    return table


def _summary(found: Audit, terms: Terms, seconds: float) -> str:
    saved = sum(term.saved for term in terms)
    share = saved / max(found.statistics.tokens, 1)
    return (
        f"{len(terms):,} terms chosen, {len(terms.forms):,} rows: {saved:,} tokens fewer in this "
        f"corpus ({share:.1%}); {len(found.candidates):,} candidates, {seconds:.1f} s"
    )
