"""`idiolect audit`: measure a tokenizer on a corpus, and find the terms it splits."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idiolect.cli.scale.ray_options import RayOption
from idiolect.cli.text_options import (
    FieldOption,
    MaxUnreadableOption,
    SourcesArgument,
    UnitOption,
    report_skipped,
)
from idiolect.errors import InputError
from idiolect.text.skipped import MAX_UNREADABLE, Skipped

if TYPE_CHECKING:
    from rich.table import Table

    from idiolect.vocabulary.audit.audit import Audit
    from idiolect.vocabulary.terms import Terms
    from idiolect.words.word_vectors import WordVectors

__all__ = ["audit"]


def audit(
    tokenizer: Annotated[
        str, typer.Argument(help="Tokenizer or model: a directory, a file or a hub id.")
    ],
    sources: SourcesArgument,
    general: Annotated[
        list[str] | None,
        typer.Option(help="General text, to prefer terms typical of the domain; repeatable."),
    ] = None,
    glossary: Annotated[
        Path | None,
        typer.Option(help="Terms to add regardless of their counts, one per line."),
    ] = None,
    max_rows: Annotated[
        int, typer.Option(help="Maximum number of new embedding rows, one per spelling.")
    ] = 5000,
    method: Annotated[
        str | None,
        typer.Option(help="How they will be added; see `extend`. Default: fits the tokenizer."),
    ] = None,
    phrases: Annotated[
        bool, typer.Option(help="Include terms that the pre-tokenizer splits.")
    ] = True,
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    top: Annotated[int, typer.Option(help="Number of terms to show.", min=0)] = 25,
    vectors: Annotated[
        Path | None,
        typer.Option(help="Word vectors of `idiolect words train`: show each term's neighbours."),
    ] = None,
    terms_out: Annotated[
        Path | None,
        typer.Option("--terms", help="Write the chosen terms as JSON, for `extend`."),
    ] = None,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the whole audit as JSON.")
    ] = None,
    csv_out: Annotated[
        Path | None, typer.Option("--csv", help="Write all candidate terms as CSV.")
    ] = None,
    ray: RayOption = None,
) -> None:
    """Measure a tokenizer on a corpus, and find the terms it splits into many tokens.

    Example:
    [bold]idiolect audit ./gpt2 products.jsonl --general books/ --terms terms.json[/bold]
    """
    from rich.console import Console

    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.training.progress import status, track
    from idiolect.vocabulary.audit.audit import audit as run
    from idiolect.vocabulary.audit.audit_report import write_csv, write_json
    from idiolect.vocabulary.terms import read_glossary
    from idiolect.words.word_vectors import WordVectors

    for path in (terms_out, json_out, csv_out):
        if path is not None and not path.parent.is_dir():
            raise InputError(f"there is no folder {path.parent}", hint="create it first")
        if path is not None and path.is_dir():
            raise InputError(f"{path} is a folder", hint="name a file to write")
        # Before the audit, which may take minutes. The file replaces an older one in its folder.
        if path is not None and not os.access(path.parent, os.W_OK | os.X_OK):
            raise InputError(
                f"{path.parent} cannot be written", hint="check its permissions, or name another"
            )
    glossary_terms = read_glossary(glossary) if glossary else None
    words = WordVectors.load(vectors) if vectors else None
    reading: dict[str, Any] = {"per": per, "max_unreadable": max_unreadable}
    left_out: dict[str, Skipped] = {}
    started = time.perf_counter()
    with status("auditing"):
        if ray is not None:
            from idiolect.scale.corpus_parts import ReadingOptions
            from idiolect.scale.ray_audit import audit_on_ray

            left_out["all texts" if general else "the corpus"] = skipped = Skipped()
            report = audit_on_ray(
                tokenizer,
                sources,
                ray,
                general=general,
                glossary=glossary_terms or (),
                options=ReadingOptions(tuple(field or ()), **reading),
                progress=True,
                skipped=skipped,
            )
        else:
            base = Tokenizer.load(tokenizer)
            corpus = Corpus(sources, field, **reading)
            general_corpus = Corpus(general, field, **reading) if general else None
            report = run(
                base,
                track(corpus, "domain documents"),
                track(general_corpus, "general documents") if general_corpus else None,
                glossary_terms,
            )
            left_out["the corpus"] = corpus.skipped
        terms = report.choose(max_rows, method=method, phrases=phrases)
    seconds = time.perf_counter() - started
    console = Console()
    console.print(_overview(report))
    console.print(_pieces(report))
    console.print(_worst(report))
    console.print(_terms(report, top, words))
    console.print(_summary(report, terms, seconds))
    if ray is None and general_corpus is not None:
        left_out["the general text"] = general_corpus.skipped
    for name, skipped in left_out.items():
        report_skipped(skipped, name)
    for term in terms.rejected:
        console.print(f"rejected {term.text!r}: {term.reason}", markup=False)
    if terms_out:
        terms.save(terms_out)
    if json_out:
        write_json(report, json_out)
    if csv_out:
        write_csv(report, csv_out)


def _overview(report: Audit) -> Table:
    from rich.table import Table

    table = Table(title=f"{report.tokenizer.kind} tokenizer with {len(report.tokenizer):,} ids")
    table.add_column("")
    sides = {"domain": report.statistics}
    if report.general:
        sides["general"] = report.general
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
    labels = (
        "documents",
        "words",
        "tokens",
        "bytes per token",
        "tokens per word",
        "unknown tokens",
    )
    for label, *cells in zip(labels, *columns, strict=True):
        table.add_row(label, *cells)
    return table


def _pieces(report: Audit) -> Table:
    from rich.table import Table

    table = Table(title="Words by number of pieces")
    counts = report.statistics.pieces
    total = max(sum(counts.values()), 1)
    few = [(str(n), counts.get(n, 0)) for n in range(1, 7)]
    for label, _ in [*few, ("more", 0)]:
        table.add_column(label, justify="right")
    many = total - sum(count for _, count in few)
    table.add_row(*(f"{count / total:.1%}" for _, count in [*few, ("more", many)]))
    return table


def _worst(report: Audit) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Documents with the most tokens per word")
    table.add_column("document", justify="right")
    table.add_column("words", justify="right")
    table.add_column("tokens per word", justify="right")
    table.add_column("beginning")
    for document in report.statistics.worst[:5]:
        beginning = Text(" ".join(document.beginning.split())[:36])
        per_word = f"{document.tokens_per_word:.2f}"
        table.add_row(f"{document.index:,}", f"{document.words:,}", per_word, beginning)
    return table


def _terms(report: Audit, top: int, words: WordVectors | None) -> Table:
    from rich.table import Table
    from rich.text import Text

    from idiolect.vocabulary.audit.audit_report import format_pieces

    table = Table(title="Terms by tokens saved if each spelling were one token")
    for name in ("term", "pieces"):
        table.add_column(name, overflow="fold")
    for name in ("forms", "count", "docs", "saved"):
        table.add_column(name, justify="right")
    has_log_odds = report.general is not None
    if has_log_odds:
        table.add_column("log-odds", justify="right")
    table.add_column("PMI", justify="right")
    if words is not None:
        table.add_column("neighbours", overflow="fold")
    for group in report.groups[: max(top, 0)]:
        first = group.candidates[0]
        cells: list[str | Text] = [
            Text(group.term),
            Text(format_pieces(report.tokenizer, first.pieces)),
            str(len(group.candidates)),
            f"{group.count:,}",
            f"{group.documents:,}",
            f"{group.saved:,}",
        ]
        if has_log_odds:
            cells.append("" if first.log_odds is None else f"{first.log_odds:+.1f}")
        cells.append("" if first.pmi is None else f"{first.pmi:.1f}")
        if words is not None:
            cells.append(Text(", ".join(word for word, _ in words.similar_to_term(group.term))))
        table.add_row(*cells)
    return table


def _summary(report: Audit, terms: Terms, seconds: float) -> str:
    share = terms.saved / max(report.statistics.tokens, 1)
    return (
        f"{len(terms):,} terms chosen from {len(report.candidates):,} candidates for the method "
        f"{terms.method!r}: {len(terms.forms):,} new tokens, {terms.saved:,} fewer tokens in this "
        f"corpus ({share:.1%}); "
        f"{seconds:.1f} s"
    )
