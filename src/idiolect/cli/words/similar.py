"""`idiolect words similar`, `idiolect words index` and `idiolect words export`."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from idiolect.cli.refusals import refuse_existing_model

__all__ = ["export", "index", "similar"]


def similar(
    file: Annotated[Path, typer.Argument(help="The vectors, or an index of them.")],
    words: Annotated[list[str], typer.Argument(help="A word, or several to add.")],
    negative: Annotated[
        list[str] | None, typer.Option("--minus", help="A word to subtract; repeatable.")
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-n", help="Number of words.", min=1)] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the most similar words; with --minus, solve an analogy.

    Example: [bold]idiolect words similar words.safetensors king woman --minus man[/bold]
    """
    from idiolect.search.word_index import WordIndex
    from idiolect.words.word_vectors import WordVectors

    if WordIndex.exists(file):
        with WordIndex.open(file) as opened:
            found = opened.most_similar(words, top_k, negative=negative or [])
    else:
        found = WordVectors.load(file).most_similar(words, top_k, negative=negative or [])
    if json:
        rows = [{"word": word, "similarity": round(score, 6)} for word, score in found]
        typer.echo(json_format.dumps(rows))
        return
    for word, score in found:
        typer.echo(f"{score:.4f}  {word}")


def index(
    file: Annotated[Path, typer.Argument(help="The vectors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the index.")],
) -> None:
    """Index the words, so that the most similar of a million are found in a millisecond.

    All commands for indexes accept the folder. Run it again to resume.

    Example: [bold]idiolect words index words.safetensors -o words.index[/bold]
    """
    from idiolect.search.word_index import WordIndex
    from idiolect.words.word_vectors import WordVectors

    vectors = WordVectors.load(file)
    with WordIndex.build(out, vectors, progress=True) as made:
        left_out = f" ({made.left_out:,} vectors of zeros left out)" if made.left_out else ""
        typer.echo(f"{len(made):,} words in {out}{left_out}")
    word = vectors.words[len(vectors) // 2]
    typer.echo(f"next: idiolect words similar {out} {word}")


def export(
    file: Annotated[Path, typer.Argument(help="The vectors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model's directory.")],
    sif: Annotated[
        bool, typer.Option("--sif", help="Weight words by rarity, and remove the common direction.")
    ] = False,
) -> None:
    """Export the vectors as a text encoder, for indexing, search and tuning.

    Example: [bold]idiolect words export words.safetensors --sif -o encoder[/bold]
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.words.word_model import word_model
    from idiolect.words.word_vectors import WordVectors

    refuse_existing_model(out)
    vectors = WordVectors.load(file)
    Encoder(word_model(vectors, sif=sif)).save(out)
    typer.echo(
        f"{len(vectors):,} words in {out}; next: idiolect index build INDEX CORPUS --encoder {out}"
    )
