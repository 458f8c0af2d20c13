"""`idiolect tokenizer`: learn a vocabulary, from scratch or going on from a published one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress
    from rich.table import Table

    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["app", "train"]

app = typer.Typer(help="Learn vocabularies.", no_args_is_help=True)

_CONTINUED = {"byte-bpe": "bpe", "sentencepiece-bpe": "bpe"}
"""The algorithm behind each kind of tokenizer, where the names differ."""


@app.callback()
def _group() -> None:
    """Learn vocabularies."""


@app.command()
def train(
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders or globs: .txt .jsonl .csv .tsv .parquet, also .gz"),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write the tokenizer to.")],
    size: Annotated[int, typer.Option(help="Number of ids to reach, special tokens included.")],
    algorithm: Annotated[
        Literal["bpe", "wordpiece", "unigram"] | None,
        typer.Option(help="By default bpe, or that of the tokenizer that is continued."),
    ] = None,
    continue_from: Annotated[
        str | None,
        typer.Option(help="Keep this tokenizer's ids and add to them: a directory, file or hub id"),
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="Field that holds the text; may be given again.")
    ] = None,
    per: Annotated[
        Literal["line", "file"], typer.Option(help="What a document is in .txt files.")
    ] = "line",
    held_out: Annotated[
        float, typer.Option(help="Share of the documents kept apart to measure on.")
    ] = 0.02,
) -> None:
    """Learn a vocabulary from a corpus.

    Going on from a published tokenizer changes none of its ids: new ones are appended.

    Example: [bold]idiolect tokenizer train notes.jsonl --field text --size 52000
    --continue-from ./gpt2 --out ./gpt2-notes[/bold]
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer

    if (out / "tokenizer.json").exists():
        raise InputError(f"{out} holds a tokenizer already", hint="choose another --out")
    corpus = Corpus(sources, field, per=per)
    training, measuring = corpus.split(held_out)
    base = Tokenizer.load(continue_from) if continue_from else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    began = time.perf_counter()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        documents = _Counted(training, progress)
        learnt = _learn(documents, size, algorithm, base, progress)
    seconds = time.perf_counter() - began
    learnt.save(out)
    table = _table({"before": base, "after": learnt} if base else {"after": learnt}, measuring)
    table.caption = f"{documents.count:,} documents in {seconds:.1f} s → {out}"
    for reason, count in training.skipped.most_common():
        table.caption += f"\nskipped {count:,}: {reason}"
    Console().print(table)


def _learn(
    texts: _Counted,
    size: int,
    algorithm: str | None,
    base: Tokenizer | None,
    progress: Progress,
) -> Tokenizer:
    from idiolect.text.tokenizers import bpe, unigram, wordpiece

    modules = {"bpe": bpe, "wordpiece": wordpiece, "unigram": unigram}
    if base is None:
        train: Callable[..., Tokenizer] = modules[algorithm or "bpe"].train
        return train(texts, size)
    name = algorithm or _CONTINUED.get(base.kind, base.kind)
    if name not in modules:
        raise InputError(
            f"a {base.kind} tokenizer cannot be continued", hint=f"known: {', '.join(modules)}"
        )
    task = progress.add_task("ids learnt", total=size - len(base))
    go_on: Callable[..., Tokenizer] = modules[name].continue_training
    return go_on(base, texts, size, progress=lambda done: progress.update(task, completed=done))


class _Counted:
    """A corpus that shows how many of its documents have been read."""

    def __init__(self, corpus: Corpus, progress: Progress) -> None:
        self._corpus, self._progress = corpus, progress
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        self.count = 0
        task = self._progress.add_task("documents read", total=None)
        for text in self._corpus:
            self.count += 1
            if self.count % 100 == 0:
                self._progress.update(task, completed=self.count)
            yield text
        self._progress.update(task, completed=self.count, total=self.count)


def _table(tokenizers: dict[str, Tokenizer], corpus: Corpus) -> Table:
    from rich.table import Table

    table = Table(title="Vocabulary, measured on documents not learnt from")
    table.add_column("")
    for column in ("ids", "tokens", "bytes per token"):
        table.add_column(column, justify="right")
    for name, tokenizer in tokenizers.items():
        tokens, size = _measure(tokenizer, corpus)
        measured = (f"{tokens:,}", f"{size / tokens:.3f}") if tokens else ("–", "–")
        table.add_row(f"{name} ({tokenizer.kind})", f"{len(tokenizer):,}", *measured)
    return table


def _measure(tokenizer: Tokenizer, corpus: Corpus) -> tuple[int, int]:
    """Count tokens and UTF-8 bytes; nothing where the corpus is too small to hold any out."""
    tokens = size = 0
    try:
        for text in corpus:
            tokens += len(tokenizer.encode(text, special_tokens=False))
            size += len(text.encode())
    except InputError:
        return 0, 0
    return tokens, size
