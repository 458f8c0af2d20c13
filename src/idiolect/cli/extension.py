"""`idiolect extend` and `idiolect distill`: teach a model new words, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from idiolect.models.language_model import LanguageModel
    from idiolect.text.tokenizers.extension import Extension
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.rows.distill import DistillationResult
    from idiolect.vocabulary.terms import Terms

__all__ = ["distill", "extend"]

_Field = Annotated[
    list[str] | None, typer.Option(help="Field that holds the text; may be given again.")
]
_Per = Annotated[Literal["line", "file"], typer.Option(help="What a document is in .txt files.")]


def extend(
    base: Annotated[str, typer.Argument(help="Model or bare tokenizer: a directory, or a hub id.")],
    terms: Annotated[
        Path, typer.Argument(help="What `idiolect audit --terms` wrote, or a text file, one a line")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write the result to.")],
    method: Annotated[
        str | None,
        typer.Option(help="exact, merges, scores, words or append; by default the tokenizer's own"),
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="Text of the domain, to verify on; may be repeated.")
    ] = None,
    general: Annotated[
        list[str] | None, typer.Option(help="Other text, to verify that it keeps its ids.")
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Add at most so many ids.")] = None,
    init: Annotated[
        Literal["subword", "weighted", "mean", "normal", "multivariate", "neighbours"],
        typer.Option(help="How the new rows begin; neighbours learns from --domain."),
    ] = "subword",
    seed: Annotated[int, typer.Option(help="Where chance begins.")] = 0,
    field: _Field = None,
    per: _Per = "line",
) -> None:
    """Teach a model's vocabulary new terms, and verify that nothing else changes.

    The original embedding rows are kept bit for bit. The result loads in `transformers`; what was
    added, refused and verified is in its extension.json.

    Example: [bold]idiolect extend ./gpt2 terms.json --domain abstracts.jsonl --general books/
    -o ./gpt2-medical[/bold]
    """
    from rich.console import Console

    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.extend.extend import extend as run

    if (out / "tokenizer.json").exists():
        raise InputError(f"{out} holds a model or tokenizer already", hint="choose another --out")
    chosen = _read_terms(terms)
    start = _load(base)
    console = Console(stderr=True)
    texts = {
        name: Corpus(sources, field, per=per) if sources else None
        for name, sources in (("domain", domain), ("general", general))
    }
    larger: LanguageModel | Tokenizer
    with console.status("extending and verifying"):
        if isinstance(start, Tokenizer):
            larger = run(start, chosen, method, rows=rows, **texts)
        else:
            larger = run(start, chosen, method, rows=rows, init=init, seed=seed, **texts)
        if larger is start or larger.extension is None:
            raise InputError("none of the terms can be added", hint="see `idiolect audit`")
        larger.save(out)
    Console().print(_extended(larger.extension, out))
    for refused in larger.extension.refused[:20]:
        console.print(f"refused {refused.text!r}: {refused.reason}", markup=False)
    for text in (*larger.extension.unverified, *larger.extension.notes):
        console.print(f"note: {text}", markup=False)


def distill(
    model: Annotated[str, typer.Argument(help="The extended model: a directory.")],
    sources: Annotated[
        list[str],
        typer.Argument(help="Text of the domain: files, folders or globs; .txt .jsonl .csv …"),
    ],
    teacher: Annotated[
        str, typer.Option(help="The model before it was extended: a directory or a hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; see below.")],
    contexts: Annotated[int, typer.Option(help="Snippets of text wanted for each token.")] = 100,
    passes: Annotated[int, typer.Option(help="How often each snippet is read.")] = 1,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="By default by the rows' size.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Where chance begins.")] = 0,
    field: _Field = None,
    per: _Per = "line",
) -> None:
    """Train new rows until the model reads new tokens as it read their pieces before.

    The same command goes on with a run that was ended. The finished model is in OUT/model.

    Example: [bold]idiolect distill ./gpt2-medical abstracts.jsonl --teacher ./gpt2
    -o runs/distilled[/bold]
    """
    from dataclasses import replace

    from rich.console import Console

    from idiolect.models.language_model import LanguageModel
    from idiolect.text.corpus import Corpus
    from idiolect.vocabulary.rows.distill import distill as run
    from idiolect.vocabulary.rows.distill import distillation_plan

    student = LanguageModel.load(model, device=_device())
    plan = distillation_plan(student, seed=seed)
    if learning_rate is not None:
        plan = replace(plan, learning_rate=learning_rate)
    try:
        result = run(
            student,
            LanguageModel.load(teacher, device=_device()),
            Corpus(sources, field, per=per),
            contexts=contexts,
            passes=passes,
            plan=plan,
            out=out,
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    Console().print(_distilled(result, out / "model"))
    for text in result.without[:20]:
        typer.echo(f"no context for {text!r}: its row is as it was", err=True)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _load(base: str) -> LanguageModel | Tokenizer:
    """Load a model; where a directory has no network, its tokenizer."""
    if Path(base).exists() and not (Path(base) / "config.json").exists():
        from idiolect.text.tokenizers.tokenizer import Tokenizer

        return Tokenizer.load(base)
    from idiolect.models.language_model import LanguageModel

    # Nothing is computed with it: the weights are written as they are.
    return LanguageModel.load(base, dtype="stored")


def _read_terms(path: Path) -> Terms:
    from idiolect.vocabulary.terms import Terms, read_glossary

    return Terms.load(path) if path.suffix == ".json" else Terms.of(read_glossary(path))


def _extended(extension: Extension, out: Path) -> Table:
    from rich.markup import escape
    from rich.table import Table

    parts = sum(token.kind == "part" for token in extension.added)
    table = Table(title=f"{len(extension.added) - parts:,} tokens added by {extension.method!r}")
    table.add_column("")
    for column in ("documents", "tokens before", "after", "saved", "changed", "inside words"):
        table.add_column(column, justify="right")
    for name, check in extension.checks.items():
        table.add_row(
            f"{name} text",
            f"{check.documents:,}",
            f"{check.tokens_before:,}",
            f"{check.tokens_after:,}",
            f"{check.saving:.1%}",
            f"{check.changed:,}",
            f"{check.inside_words:,}",
        )
    steps = f", and {parts:,} steps on the way to them" if parts else ""
    table.caption = (
        f"ids {extension.size:,} to {extension.size + len(extension.added) - 1:,}{steps}; "
        f"{len(extension.refused):,} refused → {escape(str(out))}"
    )
    return table


def _distilled(result: DistillationResult, out: Path) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Hidden states of new tokens against those of their pieces")
    for column in ("", "before", "after"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row(
        "squared distance / variance", f"{result.error_before:.4f}", f"{result.error_after:.4f}"
    )
    found = [count for count in result.contexts.values() if count]
    table.caption = (
        f"on snippets kept apart; {result.snippets:,} trained on in {result.steps:,} steps; "
        f"{len(found):,} of {len(result.contexts):,} tokens had contexts → {escape(str(out))}"
    )
    return table
