"""`idiolect tune`: train an encoder on pairs, or on text alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.errors import ConfigError

if TYPE_CHECKING:
    from idiolect.encoding.pairs import PairFile
    from idiolect.training.objectives.contrastive_losses import ContrastiveLoss

__all__ = ["tune"]

_LossName = Literal["infonce", "triplet", "margin", "margin-mse", "kl"]


def tune(
    model: Annotated[
        str, typer.Argument(help="The encoder, or any model: a directory or a hub id.")
    ],
    source: Annotated[
        list[str],
        typer.Argument(help="A file of pairs: .jsonl .csv .tsv .parquet; or text, see --objective"),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; see below.")],
    objective: Annotated[
        Literal["pairs", "simcse", "tsdae", "imitate"],
        typer.Option(help="All but pairs learn from files of text. imitate: see --teacher."),
    ] = "pairs",
    teacher: Annotated[
        str | None, typer.Option(help="The encoder before it got new tokens, to be imitated.")
    ] = None,
    query: Annotated[str, typer.Option(help="Field that holds the query.")] = "query",
    document: Annotated[str, typer.Option(help="Field that holds the document.")] = "document",
    queries: Annotated[
        Path | None, typer.Option(help="The pairs hold ids of these queries (_id, text).")
    ] = None,
    documents: Annotated[
        Path | None, typer.Option(help="The pairs hold ids of these documents (_id, title, text).")
    ] = None,
    negatives: Annotated[
        int, typer.Option(help="Hard negatives mined for each pair, anew in each pass.")
    ] = 0,
    corpus: Annotated[
        list[str] | None, typer.Option(help="More documents that negatives are mined among.")
    ] = None,
    dimensions: Annotated[
        str | None, typer.Option(help="Shorter widths to be good at (Matryoshka): 192,96")
    ] = None,
    whiten: Annotated[
        bool, typer.Option("--whiten", help="For a model that was not trained as an encoder.")
    ] = False,
    loss: Annotated[
        _LossName, typer.Option(help="margin-mse and kl copy the pairs' scores, of a teacher.")
    ] = "infonce",
    temperature: Annotated[float | None, typer.Option(help="Of infonce (0.05) and kl (1).")] = None,
    margin: Annotated[float | None, typer.Option(help="Of triplet and margin (0.2).")] = None,
    both_ways: Annotated[
        bool, typer.Option("--both-ways", help="infonce: also tell queries of a document apart.")
    ] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Steps of the whole run, instead.")] = None,
    train: Annotated[
        Literal["rows", "rows+lora", "body", "all"],
        typer.Option(help="What trains: new rows, also adapters, the body, or all but old rows."),
    ] = "all",
    unfreeze_original_rows: Annotated[
        bool, typer.Option("--unfreeze-original-rows", help="Train published rows as well.")
    ] = False,
    rank: Annotated[int, typer.Option(help="Rank of adapters.")] = 8,
    adapt: Annotated[
        str, typer.Option(help="Maps that get adapters, of query,key,value,output,gate,up,down.")
    ] = "query,value",
    length: Annotated[int | None, typer.Option(help="Tokens read of a text.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pairs a step.")] = None,
    micro_batch: Annotated[
        int | None, typer.Option(help="Texts held in memory; the result is the same.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    seed: Annotated[int | None, typer.Option(help="Where chance begins.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="Field that holds the text of --corpus or text files.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events for TensorBoard.")
    ] = False,
) -> None:
    """Train an encoder for search. The same command goes on with a run that was ended.

    The finished encoder is in OUT/model, for this and for sentence-transformers. All documents of a
    step are negatives of a pair, unless they are right for its query as well.

    Example: [bold]idiolect tune ./minilm pairs.jsonl --negatives 1 --corpus abstracts.jsonl
    --dimensions 192,96 --epochs 2 -o runs/tuned[/bold]
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.mining import Mining
    from idiolect.encoding.tune import tune as run
    from idiolect.encoding.tune import tune_on_text, tuning_plan
    from idiolect.nn.lora import LoraConfig
    from idiolect.text.corpus import Corpus

    if teacher is not None and objective == "pairs":
        raise ConfigError("objective='pairs' with a teacher", hint="--objective imitate")
    encoder = Encoder.load(model, device=_device())
    given = {
        "length": length,
        "batch": batch,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate,
        "save_every": save_every,
        "seed": seed,
    }
    values = {name: value for name, value in given.items() if value is not None}
    options: dict[str, Any] = {
        "out": out,
        "epochs": epochs,
        "steps": steps,
        "train": train,
        "lora": LoraConfig(rank=rank, alpha=2.0 * rank, targets=tuple(adapt.split(","))),
        "unfreeze_original_rows": unfreeze_original_rows,
        "plan": tuning_plan(encoder, train, **values),
        "whiten": whiten,
        "tensorboard": tensorboard,
    }
    try:
        if objective != "pairs":
            known = None if teacher is None else Encoder.load(teacher, device=_device())
            texts = Corpus(source, field)
            tune_on_text(encoder, texts, objective=objective, teacher=known, **options)
        else:
            pairs, named = _pairs(source, query, document, queries, documents)
            run(
                encoder,
                pairs,
                loss=_loss(loss, temperature, margin, both_ways),
                dimensions=_numbers(dimensions),
                mining=Mining(count=negatives) if negatives else None,
                corpus=[*named, *(Corpus(corpus, field) if corpus else ())],
                **options,
            )
            _tell_skipped(pairs)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(f"the encoder is in {out / 'model'}")


def _pairs(
    source: list[str], query: str, document: str, queries: Path | None, documents: Path | None
) -> tuple[PairFile, list[str]]:
    """Return the pairs, and the documents that their ids name."""
    from idiolect.encoding.pairs import PairFile, read_query_texts, read_texts

    if len(source) != 1:
        raise ConfigError(f"{len(source)} files of pairs", hint="give one")
    texts = None if documents is None else read_texts(documents)
    pairs = PairFile(
        source[0],
        query=query,
        document=document,
        queries=None if queries is None else read_query_texts(queries),
        documents=texts,
    )
    return pairs, list((texts or {}).values())


def _loss(
    name: _LossName, temperature: float | None, margin: float | None, both_ways: bool
) -> ContrastiveLoss:
    from idiolect.training.objectives import contrastive_losses as contrastive

    kinds: dict[_LossName, type[Any]] = {
        "infonce": contrastive.InfoNCE,
        "triplet": contrastive.Triplet,
        "margin": contrastive.Margin,
        "margin-mse": contrastive.MarginMSE,
        "kl": contrastive.KL,
    }
    given = {"temperature": temperature, "margin": margin, "both_ways": both_ways or None}
    values = {option: value for option, value in given.items() if value is not None}
    unknown = set(values) - set(kinds[name].__dataclass_fields__)
    if unknown:
        raise ConfigError(f"the loss {name} has no {sorted(unknown)[0]}", hint="leave it out")
    loss: ContrastiveLoss = kinds[name](**values)
    return loss


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise ConfigError(f"dimensions {text!r}", hint="numbers, as 192,96") from None


def _tell_skipped(pairs: PairFile) -> None:
    for reason, count in pairs.skipped.most_common():
        typer.echo(f"{count:,} records of {pairs.path} were left out: {reason}", err=True)


def _device() -> str:
    """Return this process's GPU, where the machine has any."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
