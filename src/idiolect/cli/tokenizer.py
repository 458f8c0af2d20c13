"""`idiolect tokenizer`: train a tokenizer, from scratch or from a published one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.refusals import refuse_existing_model
from idiolect.cli.text_options import (
    FieldOption,
    MaxUnreadableOption,
    SourcesArgument,
    UnitOption,
    report_skipped,
)
from idiolect.errors import InputError
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["app", "train"]

app = typer.Typer(help="Train tokenizers.", no_args_is_help=True)

_ALGORITHMS = {"byte-bpe": "bpe", "sentencepiece-bpe": "bpe"}
"""The algorithm of each kind of tokenizer, if the names differ."""


@app.callback()
def _group() -> None:
    """Train tokenizers."""


@app.command()
def train(
    sources: SourcesArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write the tokenizer to.")],
    vocab_size: Annotated[int, typer.Option(help="Number of ids, with special tokens.", max=10**8)],
    algorithm: Annotated[
        Literal["bpe", "wordpiece", "unigram"] | None,
        typer.Option(help="Default: bpe, or that of --continue-from."),
    ] = None,
    continue_from: Annotated[
        str | None,
        typer.Option(
            help="Add ids to this tokenizer, keeping its own: a directory, file or hub id."
        ),
    ] = None,
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    held_out: Annotated[
        float,
        typer.Option(help="Share of documents held out for the comparison."),
    ] = 0.02,
) -> None:
    """Train a tokenizer on a corpus.

    With --continue-from, all ids of that tokenizer stay unchanged and new ones are appended.

    Example: [bold]idiolect tokenizer train notes.jsonl --field text --vocab-size 52000
    --continue-from ./gpt2 --out ./gpt2-notes[/bold]
    """
    from rich.console import Console

    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.training.progress import status

    refuse_existing_model(out)
    corpus = Corpus(sources, field, per=per, max_unreadable=max_unreadable)
    training, measuring = corpus.split(held_out)
    base = Tokenizer.load(continue_from) if continue_from else None
    began = time.perf_counter()
    documents = _ReportingCorpus(training)
    with status("training the tokenizer"):
        trained = _train(documents, vocab_size, algorithm, base)
    seconds = time.perf_counter() - began
    trained.save(out)
    table = _table({"before": base, "after": trained} if base else {"after": trained}, measuring)
    table.caption = f"{documents.count:,} documents in {seconds:.1f} s → {out}"
    Console().print(table)
    report_skipped(training.skipped)


def _train(
    texts: _ReportingCorpus,
    size: int,
    algorithm: str | None,
    base: Tokenizer | None,
) -> Tokenizer:
    from idiolect.text.tokenizers import bpe, unigram, wordpiece
    from idiolect.training.progress import show_progress

    modules = {"bpe": bpe, "wordpiece": wordpiece, "unigram": unigram}
    if base is None:
        train: Callable[..., Tokenizer] = modules[algorithm or "bpe"].train
        return train(texts, size)
    name = algorithm or _ALGORITHMS.get(base.kind, base.kind)
    if name not in modules:
        raise InputError(
            f"a {base.kind} tokenizer cannot be trained further",
            hint=f"known: {', '.join(modules)}",
        )
    extend: Callable[..., Tokenizer] = modules[name].extend
    with show_progress("ids learnt", size - len(base)) as activity:
        return extend(base, texts, size, progress=activity.update)


class _ReportingCorpus:
    """A corpus that reports the number of documents read so far."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        from idiolect.training.progress import track

        self.count = 0
        for text in track(self._corpus, "documents read"):
            self.count += 1
            yield text


def _table(tokenizers: dict[str, Tokenizer], corpus: Corpus) -> Table:
    from rich.table import Table

    table = Table(title="Vocabulary, measured on held-out documents")
    table.add_column("")
    for column in ("ids", "tokens", "bytes per token"):
        table.add_column(column, justify="right")
    for name, tokenizer in tokenizers.items():
        tokens, size = _measure(tokenizer, corpus)
        measured = (f"{tokens:,}", f"{size / tokens:.3f}") if tokens else ("–", "–")
        table.add_row(f"{name} ({tokenizer.kind})", f"{len(tokenizer):,}", *measured)
    return table


def _measure(tokenizer: Tokenizer, corpus: Corpus) -> tuple[int, int]:
    """Count tokens and UTF-8 bytes; both are zero if no documents are held out."""
    tokens = size = 0
    try:
        for text in corpus:
            tokens += len(tokenizer.encode(text, add_special_tokens=False))
            size += len(text.encode())
    except InputError:
        return 0, 0
    return tokens, size
