"""`idiolect tasks bitext evaluate | mine | pairs`: sentences and their translations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.training_options import MaxLengthOption, local_device

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from idiolect.encoding.encoder import Encoder
    from idiolect.tasks.crosslingual.aligned_sentences import ParallelText

__all__ = ["evaluate", "mine", "pairs"]

_EncoderArgument = Annotated[str, typer.Argument(help="The encoder: a directory or a hub id.")]
_Source = Annotated[Path | None, typer.Option(help="Sentences, one per line; also .gz.")]
_Target = Annotated[Path | None, typer.Option(help="Their translations, line by line.")]
_Archive = Annotated[
    Path | None,
    typer.Option(help="Archive of languages with English, such as tatoeba-v1.tar.gz."),
]
_Languages = Annotated[
    str | None, typer.Option(help="Languages of the archive, such as deu,fra. Default: all.")
]
_Part = Annotated[
    Literal["all", "first", "second"],
    typer.Option(help="All or one half; equal target sentences share a half."),
]
_MarginOption = Annotated[
    Literal["cosine", "ratio", "distance"],
    typer.Option(help="Score by cosine, or by its margin over the nearest neighbours."),
]
_Neighbours = Annotated[int, typer.Option("--k", help="Neighbours of the margin.", min=1, max=1000)]


def evaluate(
    encoder: _EncoderArgument,
    source: _Source = None,
    target: _Target = None,
    archive: _Archive = None,
    languages: _Languages = None,
    part: _Part = "all",
    margin: _MarginOption = "ratio",
    k: _Neighbours = 4,
    max_length: MaxLengthOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how often the nearest sentence of the other language is not the translation.

    Example: [bold]idiolect tasks bitext evaluate minilm --archive tatoeba-v1.tar.gz
    --languages deu,fra,ces[/bold]
    """
    from idiolect.tasks.crosslingual.margin_scores import retrieval_errors

    loaded = _load(encoder, max_length)
    rows = []
    for text in _texts(source, target, archive, languages):
        one = text.part(part)
        x, y = (_encode(loaded, side) for side in (one.sources, one.targets))
        found = {
            name: retrieval_errors(x, y, margin=name, k=k)
            for name in dict.fromkeys(("cosine", margin))
        }
        rows.append((one, found))
    if as_json:
        typer.echo(
            json.dumps(
                {
                    one.name: {"sentences": len(one.sources)}
                    | {n: {"forward": e.forward, "backward": e.backward} for n, e in found.items()}
                    for one, found in rows
                }
            )
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Error rates of retrieval", title_justify="left")
    table.add_column("")
    names = [f"{n} {way}" for n in rows[0][1] for way in ("→", "←")]
    for column in ("sentences", *names):
        table.add_column(column, justify="right", no_wrap=True)
    for one, found in rows:
        rates = [rate for e in found.values() for rate in (e.forward, e.backward)]
        table.add_row(one.name, f"{len(one.sources):,}", *(f"{rate:.3f}" for rate in rates))
    if len(rows) > 1:
        table.add_row(
            "mean",
            "",
            *(
                f"{sum(getattr(found[n], way) for _, found in rows) / len(rows):.3f}"
                for n in rows[0][1]
                for way in ("forward", "backward")
            ),
        )
    Console().print(table)


def mine(
    encoder: _EncoderArgument,
    source: Annotated[Path, typer.Option(help="Sentences, one per line; also .gz.")],
    target: Annotated[Path, typer.Option(help="Sentences of another language, in any order.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="TSV: score, source, target.")],
    threshold: Annotated[
        float | None,
        typer.Option(help="Minimum score, such as 1.06 for a ratio.", min=-100, max=100),
    ] = None,
    margin: _MarginOption = "ratio",
    k: _Neighbours = 4,
    max_length: MaxLengthOption = None,
) -> None:
    """Find translations among the sentences of two texts, most likely first.

    Example: [bold]idiolect tasks bitext mine runs/tuned/model --source de.txt --target en.txt
    -o mined.tsv[/bold]
    """
    from idiolect.tasks.crosslingual.aligned_sentences import read_sentences
    from idiolect.tasks.crosslingual.margin_scores import mine_pairs
    from idiolect.text.files import write_atomic

    loaded = _load(encoder, max_length)
    sides = [
        list(dict.fromkeys(sentence for sentence in read_sentences(path) if sentence))
        for path in (source, target)
    ]
    x, y = (_encode(loaded, side) for side in sides)
    found = mine_pairs(x, y, margin=margin, k=k, threshold=threshold)
    lines = [
        f"{pair.score:.4f}\t{_cell(sides[0][pair.source])}\t{_cell(sides[1][pair.target])}"
        for pair in found
    ]
    write_atomic(out, ("\n".join(["score\tsource\ttarget", *lines]) + "\n").encode())
    typer.echo(
        f"{len(found):,} pairs of {len(sides[0]):,} and {len(sides[1]):,} sentences are in {out}"
    )


def pairs(
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON Lines for idiolect tune.")],
    source: _Source = None,
    target: _Target = None,
    archive: _Archive = None,
    languages: _Languages = None,
    part: _Part = "all",
) -> None:
    """Write parallel text as training pairs for `idiolect tune`.

    Example: [bold]idiolect tasks bitext pairs --source de.txt --target en.txt -o pairs.jsonl[/bold]

    Then: [bold]idiolect tune minilm pairs.jsonl --bidirectional -o runs/bilingual[/bold]
    """
    from idiolect.text.files import write_atomic

    lines = [
        json.dumps({"query": one, "document": other}, ensure_ascii=False)
        for text in _texts(source, target, archive, languages)
        for half in [text.part(part)]
        for one, other in zip(half.sources, half.targets, strict=True)
    ]
    write_atomic(out, ("\n".join(lines) + "\n").encode())
    typer.echo(f"{len(lines):,} pairs are in {out}")


def _texts(
    source: Path | None, target: Path | None, archive: Path | None, languages: str | None
) -> list[ParallelText]:
    from idiolect.errors import ConfigError
    from idiolect.tasks.crosslingual.aligned_sentences import read_archive, read_parallel

    if archive is not None and source is None and target is None:
        return read_archive(archive, None if languages is None else languages.split(","))
    if source is None or target is None or archive is not None or languages is not None:
        raise ConfigError(
            "the parallel text is missing or twice",
            hint="give --source and --target, or --archive with --languages",
        )
    return [read_parallel(source, target)]


def _load(encoder: str, max_length: int | None) -> Encoder:
    from idiolect.encoding.encoder import Encoder

    loaded = Encoder.load(encoder, device=local_device())
    return loaded if max_length is None else loaded.with_changes(max_length=max_length)


def _encode(encoder: Encoder, texts: list[str]) -> NDArray[np.float32]:
    return encoder.encode(texts, progress=True)


def _cell(text: str) -> str:
    return text.replace("\t", " ")
