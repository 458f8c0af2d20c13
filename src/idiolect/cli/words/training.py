"""`idiolect words train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from idiolect.cli.refusals import refuse_existing_vectors, refuse_unused
from idiolect.cli.text_options import (
    FieldOption,
    MaxUnreadableOption,
    SourcesArgument,
    UnitOption,
    report_skipped,
)
from idiolect.cli.training_options import SeedOption
from idiolect.text.skipped import MAX_UNREADABLE

__all__ = ["train"]

_OF_WORD2VEC = ("negative", "shared_negatives", "sample", "min_n", "max_n", "buckets")


def train(
    context: typer.Context,
    sources: SourcesArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The file to write: .safetensors, .txt, .vec, .bin or .glove."
        ),
    ],
    model: Annotated[
        Literal["skipgram", "cbow", "glove"], typer.Option(help="The model to train.")
    ] = "skipgram",
    dimensions: Annotated[int, typer.Option(help="Width of the vectors.", min=1)] = 100,
    window: Annotated[
        int | None, typer.Option(help="Context words on each side. Default: 5; GloVe: 15.", min=1)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the text. Default: 5; GloVe: 25.", min=1)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Default: .025; CBOW, n-grams and GloVe: .05.", min=1e-6, max=1),
    ] = None,
    negative: Annotated[
        int, typer.Option(help="Noise words per prediction; 0: hierarchical softmax.", min=0)
    ] = 5,
    shared_negatives: Annotated[
        bool, typer.Option(help="Share noise words among the predictions of a window.")
    ] = True,
    sample: Annotated[
        float,
        typer.Option(help="Subsampling threshold, as a share of the text; 0: none.", min=0),
    ] = 1e-3,
    min_count: Annotated[int, typer.Option(help="Leave out rarer words.", min=1)] = 5,
    phrases: Annotated[int, typer.Option(help="Passes that join word pairs.", min=0)] = 0,
    min_n: Annotated[
        int, typer.Option(help="Shortest character n-gram; 0: none. fastText: 3.", min=0)
    ] = 0,
    max_n: Annotated[int, typer.Option(help="Longest character n-gram.", min=1)] = 6,
    buckets: Annotated[int, typer.Option(help="Rows for n-grams.", min=1)] = 2_000_000,
    x_max: Annotated[
        float,
        typer.Option(help="GloVe: x_max, from which counts have full weight.", min=1, max=1e9),
    ] = 100.0,
    memory_mb: Annotated[int, typer.Option(help="GloVe: MiB for counting.", min=1)] = 1024,
    whitespace: Annotated[
        bool,
        typer.Option("--whitespace", help="Split at spaces only; keep case and punctuation."),
    ] = False,
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    threads: Annotated[
        int, typer.Option(help="Number of threads; reproducible only with one.", min=1)
    ] = 1,
    seed: SeedOption = 0,
) -> None:
    """Train word vectors: word2vec, fastText's n-grams or GloVe. Run it again to resume.

    Example: [bold]idiolect words train abstracts.jsonl --model skipgram --dimensions 100 -o
    words.safetensors[/bold]
    """
    from idiolect.text.corpus import Corpus
    from idiolect.words.glove import GloveConfig
    from idiolect.words.train_words import train_words
    from idiolect.words.word2vec import Word2VecConfig

    if model == "glove":
        refuse_unused(context, "it is an option of word2vec", *_OF_WORD2VEC)
    else:
        refuse_unused(context, "it is an option of --model glove", "x_max", "memory_mb")
    if not negative:
        refuse_unused(context, "--negative is 0", "shared_negatives")
    if not min_n:
        refuse_unused(context, "there are no n-grams without --min-n", "max_n", "buckets")
    refuse_existing_vectors(out)
    corpus = Corpus(sources, field, per=per, max_unreadable=max_unreadable)
    config: Word2VecConfig | GloveConfig
    if model == "glove":
        config = GloveConfig(
            dimensions=dimensions,
            window=window or 15,
            epochs=epochs or 25,
            learning_rate=0.05 if learning_rate is None else learning_rate,
            x_max=x_max,
            memory_mb=memory_mb,
            threads=threads,
            seed=seed,
        )
    else:
        config = Word2VecConfig(
            model=model,
            dimensions=dimensions,
            window=window or 5,
            epochs=epochs or 5,
            learning_rate=learning_rate,
            negative=negative,
            shared_negatives=shared_negatives,
            sample=sample,
            min_n=min_n,
            max_n=max_n,
            buckets=buckets,
            threads=threads,
            seed=seed,
        )
    made = train_words(
        corpus, out, config, min_count=min_count, phrases=phrases, whitespace=whitespace
    )
    report_skipped(corpus.skipped)
    losses = " ".join(f"{loss:.4f}" for loss in made.losses)
    typer.echo(
        f"{len(made.vectors):,} vectors of {made.vectors.dimensions} dimensions from "
        f"{made.trained_words:,} words in {out} ({made.left_out:,} rarer words left out)"
    )
    typer.echo(f"loss of each epoch: {losses}")
    typer.echo(f"next: idiolect words similar {out} {made.vectors.words[len(made.vectors) // 2]}")
