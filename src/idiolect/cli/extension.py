"""`idiolect extend` and `idiolect distill`: add terms to a model, and train their rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.refusals import refuse_existing_model, refuse_unused
from idiolect.cli.text_options import (
    FieldOption,
    MaxUnreadableOption,
    SourcesArgument,
    UnitOption,
    report_skipped,
)
from idiolect.cli.training_options import (
    EpochsOption,
    LearningRateOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    SeedOption,
    TensorboardOption,
    given,
    local_device,
)
from idiolect.errors import InputError
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from rich.table import Table

    from idiolect.models.language_model import LanguageModel
    from idiolect.text.tokenizers.extension import Extension
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.rows.distill import DistillationResult
    from idiolect.vocabulary.terms import Terms

__all__ = ["distill", "extend"]


def extend(
    context: typer.Context,
    base: Annotated[str, typer.Argument(help="Model or tokenizer: a directory or a hub id.")],
    terms: Annotated[
        Path,
        typer.Argument(help="Output of `idiolect audit --terms`, or a text file, one per line."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory to write the extended model to.")
    ],
    method: Annotated[
        str | None,
        typer.Option(help="exact, merges, scores, words or append. Default: fits the tokenizer."),
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="Held-out domain text for verification; repeatable.")
    ] = None,
    general: Annotated[
        list[str] | None,
        typer.Option(help="Text whose tokens must not change; repeatable."),
    ] = None,
    max_rows: Annotated[int | None, typer.Option(help="Maximum number of new ids.", min=1)] = None,
    init: Annotated[
        Literal["subword", "weighted", "mean", "normal", "multivariate", "neighbours", "vectors"],
        typer.Option(
            help="Initialisation of the new rows; neighbours learns from --domain, vectors from "
            "--vectors."
        ),
    ] = "subword",
    vectors: Annotated[
        Path | None,
        typer.Option(help="Word vectors of `idiolect words train`, for --init vectors."),
    ] = None,
    seed: SeedOption = 0,
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Add terms to a model's vocabulary, and verify that nothing else changes.

    The original embedding rows are unchanged, bit for bit. The result loads in
    `transformers`. Its extension.json lists the added and rejected terms and the
    results of the verification.

    Example:
    [bold]idiolect extend ./gpt2 terms.json --general books/ -o ./gpt2-medical[/bold]
    """
    from rich.console import Console

    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.training.progress import status
    from idiolect.vocabulary.extend.extend import extend as run
    from idiolect.words.word_vectors import WordVectors

    refuse_existing_model(out)
    terms_to_add = _read_terms(terms)
    original = _load(base)
    console = Console(stderr=True)
    texts = {
        name: Corpus(sources, field, per=per, max_unreadable=max_unreadable) if sources else None
        for name, sources in (("domain", domain), ("general", general))
    }
    larger: LanguageModel | Tokenizer
    with status("extending and verifying"):
        if isinstance(original, Tokenizer):
            if vectors is not None:
                raise InputError(
                    f"{base} is a tokenizer: it has no rows to initialise",
                    hint="leave out --vectors, or extend a model",
                )
            refuse_unused(context, f"{base} is a tokenizer, without rows", "init", "seed")
            larger = run(original, terms_to_add, method, max_rows=max_rows, **texts)
        else:
            larger = run(
                original,
                terms_to_add,
                method,
                max_rows=max_rows,
                init=init,
                vectors=None if vectors is None else WordVectors.load(vectors),
                seed=seed,
                **texts,
            )
        record = _added_record(larger, original)
        larger.save(out)
    Console().print(_extension_table(record, out))
    for refused in record.refused[:20]:
        console.print(f"refused {refused.text!r}: {refused.reason}", markup=False)
    if len(record.refused) > 20:
        console.print(f"… and {len(record.refused) - 20:,} more; see extension.json", markup=False)
    for text in (*record.unverified, *record.notes):
        console.print(f"note: {text}", markup=False)
    for name, corpus in texts.items():
        if corpus is not None:
            report_skipped(corpus.skipped, f"the {name} text")


def distill(
    model: Annotated[str, typer.Argument(help="The extended model: a directory.")],
    sources: SourcesArgument,
    teacher: Annotated[
        str, typer.Option(help="The original model, before extension: a directory or a hub id.")
    ],
    out: RunFolderOption,
    contexts: Annotated[int, typer.Option(help="Text snippets for each new token.", min=1)] = 100,
    epochs: EpochsOption = 1,
    learning_rate: LearningRateOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    tensorboard: TensorboardOption = False,
) -> None:
    """Train new rows so that new tokens behave like the pieces they replace.

    Run it again to resume. The rows are trained until the hidden states of the extended model match
    those of the original one.

    Example:
    [bold]idiolect distill ./gpt2-medical notes.jsonl --teacher ./gpt2 -o distilled[/bold]
    """
    from dataclasses import replace

    from rich.console import Console

    from idiolect.models.language_model import LanguageModel
    from idiolect.text.corpus import Corpus
    from idiolect.vocabulary.rows.distill import distill as run
    from idiolect.vocabulary.rows.distill import distillation_config

    student = LanguageModel.load(model, device=local_device())
    settings = given(learning_rate=learning_rate, precision=precision, save_steps=save_steps)
    corpus = Corpus(sources, field, per=per, max_unreadable=max_unreadable)
    result = run(
        student,
        LanguageModel.load(teacher, device=local_device()),
        corpus,
        contexts=contexts,
        epochs=epochs,
        config=replace(distillation_config(student, seed=seed), **settings),
        output_dir=out,
        tensorboard=tensorboard,
    )
    Console().print(_distillation_table(result, out / "model"))
    report_skipped(corpus.skipped)
    for text in result.without[:20]:
        typer.echo(f"no context for {text!r}: its row is unchanged", err=True)


def _load(base: str) -> LanguageModel | Tokenizer:
    """Load a model, or a tokenizer if the directory has no config.json."""
    if Path(base).exists() and not (Path(base) / "config.json").exists():
        from idiolect.text.tokenizers.tokenizer import Tokenizer

        return Tokenizer.load(base)
    from idiolect.models.language_model import LanguageModel

    # No computation is needed, so the weights keep their stored dtype.
    return LanguageModel.load(base, dtype="stored")


def _added_record(
    larger: LanguageModel | Tokenizer, original: LanguageModel | Tokenizer
) -> Extension:
    record = larger.extension
    if larger is not original and record is not None and record.added:
        return record
    refused = record.refused if record is not None else ()
    # A file of records passed by mistake has whole records in the place of terms.
    texts = [one.text if len(one.text) <= 60 else f"{one.text[:59]}…" for one in refused[:3]]
    reasons = "; ".join(
        f"{text!r}: {form.reason}" for text, form in zip(texts, refused, strict=False)
    )
    raise InputError(
        "none of the terms can be added" + (f": {reasons}" if reasons else ""),
        hint="see `idiolect audit` for terms that can",
    )


def _read_terms(path: Path) -> Terms:
    from idiolect.vocabulary.terms import Terms, read_glossary

    if path.suffix == ".json":
        return Terms.load(path)
    lines = read_glossary(path)
    first = next(filter(None, lines), "")
    if first == "{":  # the first line of what `audit --terms` writes
        return Terms.load(path)
    if first.startswith('{"'):
        raise InputError(
            f"{path} holds records, not terms",
            hint="give the output of `idiolect audit --terms`, or a text file, one term per line",
        )
    return Terms.of(lines)


def _extension_table(extension: Extension, out: Path) -> Table:
    from rich.markup import escape
    from rich.table import Table

    parts = sum(token.kind == "part" for token in extension.added)
    table = Table(title=f"{len(extension.added) - parts:,} tokens added by {extension.method!r}")
    table.add_column("text")
    for column in (
        "documents",
        "tokens before",
        "tokens after",
        "saved",
        "changed",
        "inside words",
    ):
        table.add_column(column, justify="right")
    for name, check in extension.checks.items():
        table.add_row(
            name,
            f"{check.documents:,}",
            f"{check.tokens_before:,}",
            f"{check.tokens_after:,}",
            f"{check.saving:.1%}",
            f"{check.changed:,}",
            f"{check.inside_words:,}",
        )
    intermediate = f", including {parts:,} intermediate tokens" if parts else ""
    table.caption = (
        f"ids {extension.size:,} to {extension.size + len(extension.added) - 1:,}{intermediate}; "
        f"{len(extension.refused):,} refused → {escape(str(out))}"
    )
    return table


def _distillation_table(result: DistillationResult, out: Path) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Hidden states of new tokens compared with those of their pieces")
    for column in ("", "before", "after"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row(
        "squared error / variance", f"{result.error_before:.4f}", f"{result.error_after:.4f}"
    )
    trained = sum(count > 0 for count in result.contexts.values())
    table.caption = (
        f"on held-out snippets; {result.snippets:,} training snippets, {result.steps:,} steps; "
        f"{trained:,} of {len(result.contexts):,} tokens had contexts → {escape(str(out))}"
    )
    return table
