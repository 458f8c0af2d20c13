"""`idiolect tune`: train an encoder, or a ranking model."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

# Registers the objectives of `tune`.
import idiolect.encoding.objectives  # noqa: F401
from idiolect.cli import tune_ranker
from idiolect.cli.endings import ResumableCommand
from idiolect.cli.judged_data import parse_dimensions
from idiolect.cli.refusals import refuse_epochs, refuse_lora, refuse_unused
from idiolect.cli.text_options import FieldOption, MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import (
    UNFREEZE,
    BatchSizeOption,
    EpochsOption,
    LearningRateOption,
    LoraModulesOption,
    LoraRankOption,
    MaxLengthOption,
    MicroBatchSizeOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    SeedOption,
    TensorboardOption,
    TrainedPart,
    given,
    local_device,
    lora_config,
    objective_help,
)
from idiolect.errors import ConfigError
from idiolect.text.skipped import MAX_UNREADABLE
from idiolect.training.objectives.objective_registry import find_objective

if TYPE_CHECKING:
    from idiolect.encoding.pairs import PairFile
    from idiolect.training.objectives.contrastive_losses import ContrastiveLoss

__all__ = ["app", "encoder", "parse_layers"]

_TRAIN = typer.Option(
    help="What trains: new rows, with LoRA, the body, or all but original rows. For a static "
    "encoder: all, or rows, which keeps the original ones and trains a projection instead."
)
_OF_PAIRS = (
    "query", "document", "queries", "documents", "negatives", "corpus", "dimensions", "loss",
    "temperature", "margin", "bidirectional",
)  # fmt: skip
"""Options that only the objective on pairs uses."""
_LossName = Literal["infonce", "triplet", "margin", "margin-mse", "kl"]


class _TuneGroup(TyperGroup):
    """A group with a default command: `tune MODEL …` is `tune encoder MODEL …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = (*self.commands, *ctx.help_option_names)
        if args and args[0] not in known and not self._is_misspelt(args[0]):
            args = ["encoder", *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def _is_misspelt(self, word: str) -> bool:
        """Return whether a word resembles a command, and no model of that name exists."""
        plain = word.lower().replace("_", "-")
        return bool(get_close_matches(plain, self.commands, cutoff=0.7)) and not Path(word).exists()


app = typer.Typer(cls=_TuneGroup, no_args_is_help=True)
app.command("cross-encoder", cls=ResumableCommand)(tune_ranker.cross_encoder)
app.command("two-tower", cls=ResumableCommand)(tune_ranker.two_tower)
app.command("lambdamart")(tune_ranker.lambdamart)


@app.callback()
def _group() -> None:
    """Train an encoder for search, or a ranking model.

    [bold]idiolect tune MODEL PAIRS …[/bold] is short for [bold]idiolect tune encoder MODEL
    PAIRS …[/bold]; see [bold]idiolect tune encoder --help[/bold].

    Example: [bold]idiolect tune ./minilm pairs.jsonl --epochs 2 -o runs/tuned[/bold]

    Example: [bold]idiolect tune cross-encoder ./minilm --data scifact -o runs/cross-encoder[/bold]
    """


@app.command("encoder", cls=ResumableCommand)
def encoder(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="An encoder or any language model: a directory or a hub id.")
    ],
    source: Annotated[
        list[str],
        typer.Argument(help="Pairs: .jsonl .csv .tsv .parquet; or text, see --objective."),
    ],
    out: RunFolderOption,
    objective: Annotated[
        str, typer.Option(help=f"{objective_help('tune')} All but pairs train on text.")
    ] = "pairs",
    teacher: Annotated[
        str | None,
        typer.Option(help="For imitate: the encoder before it was extended."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Use only the first layers of the model. 0: a static encoder; auto: tries a few "
            "on held-out pairs.",
            metavar="INTEGER|auto",
        ),
    ] = None,
    query: Annotated[str, typer.Option(help="Field of the query.")] = "query",
    document: Annotated[str, typer.Option(help="Field of the document.")] = "document",
    queries: Annotated[
        Path | None, typer.Option(help="Queries (_id, text), if the pairs hold ids.")
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(help="Documents (_id, title, text), if the pairs hold ids."),
    ] = None,
    negatives: Annotated[
        int, typer.Option(help="Hard negatives for each pair, mined again in each epoch.", min=0)
    ] = 0,
    corpus: Annotated[
        list[str] | None, typer.Option(help="More documents to mine negatives from.")
    ] = None,
    dimensions: Annotated[
        str | None, typer.Option(help="Truncated sizes to train for (Matryoshka): 192,96")
    ] = None,
    whiten: Annotated[
        bool,
        typer.Option(
            "--whiten",
            help="Whiten vectors: for a model not trained as an encoder. Always on if static.",
        ),
    ] = False,
    loss: Annotated[
        _LossName, typer.Option(help="margin-mse and kl fit the teacher scores of the pairs.")
    ] = "infonce",
    temperature: Annotated[
        float | None, typer.Option(help="Temperature of infonce (0.05) and kl (1).", min=0)
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Margin of triplet and margin (0.2).", min=0)
    ] = None,
    bidirectional: Annotated[
        bool,
        typer.Option("--bidirectional", help="infonce: also contrast queries for each document."),
    ] = False,
    epochs: EpochsOption = 1,
    steps: Annotated[
        int | None, typer.Option(help="Total steps, instead of --epochs.", min=1)
    ] = None,
    train: Annotated[TrainedPart, _TRAIN] = "all",
    unfreeze_original_rows: Annotated[bool, UNFREEZE] = False,
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    max_length: MaxLengthOption = None,
    batch_size: BatchSizeOption = None,
    micro_batch_size: MicroBatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    field: FieldOption = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    tensorboard: TensorboardOption = False,
) -> None:
    """Train an encoder for search. Run it again to resume.

    The encoder in OUT/model also loads in sentence-transformers. Negatives of a pair are the other
    documents of the batch (in-batch negatives), except those known to be relevant to its query.

    Example: [bold]idiolect tune ./minilm pairs.jsonl --negatives 1 --corpus abstracts.jsonl
    --dimensions 192,96 --epochs 2 -o runs/tuned[/bold]
    """
    from idiolect.encoding.depth import with_layers
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.mining import Mining
    from idiolect.encoding.tune import tune as run
    from idiolect.encoding.tune_on_text import tune_on_text
    from idiolect.text.corpus import Corpus

    entry, depth = find_objective("tune", objective), parse_layers(layers)
    _check_needs(objective, on_pairs=entry.data == "pairs", teacher=teacher, layers=depth)
    if entry.data == "text":
        refuse_unused(
            context, f"the objective {objective} trains on text, not on pairs", *_OF_PAIRS
        )
    elif not corpus:
        refuse_unused(context, "pairs have --query and --document instead", "field")
    if train != "rows+lora":
        refuse_lora(context, f"--train {train}")
    refuse_epochs(context, steps)
    start = Encoder.load(model, device=local_device())
    if isinstance(depth, int):
        start = with_layers(start, depth)
    settings = given(
        max_length=max_length,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        learning_rate=learning_rate,
        precision=precision,
        save_steps=save_steps,
    )
    options: dict[str, Any] = {
        "output_dir": out,
        "epochs": epochs,
        "steps": steps,
        "train": train,
        "lora": lora_config(lora_r, lora_target_modules),
        "unfreeze_original_rows": unfreeze_original_rows,
        "config": {"seed": seed, **settings},
        "whiten": whiten or None,
        "tensorboard": tensorboard,
    }
    if entry.data == "text":
        known = None if teacher is None else Encoder.load(teacher, device=local_device())
        texts = Corpus(source, field, max_unreadable=max_unreadable)
        tune_on_text(start, texts, objective=objective, teacher=known, **options)
        report_skipped(texts.skipped)
    else:
        pairs, named = _pairs(source, query, document, queries, documents, max_unreadable)
        more = Corpus(corpus, field, max_unreadable=max_unreadable) if corpus else None
        run(
            start,
            pairs,
            layers="auto" if depth == "auto" else None,
            loss=_loss(loss, temperature, margin, bidirectional),
            dimensions=parse_dimensions(dimensions),
            mining=Mining(count=negatives) if negatives else None,
            corpus=[*named, *(more or ())],
            **options,
        )
        report_skipped(pairs.skipped)
        if more is not None:
            report_skipped(more.skipped, "the corpus")
    typer.echo(
        f"the encoder is in {out / 'model'}; next: idiolect index build INDEX ITEMS "
        f"--encoder {out / 'model'}"
    )


def _check_needs(
    objective: str, *, on_pairs: bool, teacher: str | None, layers: int | str | None
) -> None:
    """Reject a teacher or a number of layers if the objective does not support them."""
    if teacher is not None and on_pairs:
        raise ConfigError(
            f"the objective {objective!r} has no teacher",
            hint="only 'imitate' learns from a teacher",
        )
    if layers == "auto" and not on_pairs:
        raise ConfigError(
            f"layers cannot be chosen with the objective {objective!r}",
            hint="auto needs pairs; give a number",
        )


def parse_layers(text: str | None) -> int | Literal["auto"] | None:
    """Read a number of layers, or `auto`.

    Raises:
        ConfigError: The text is neither.
    """
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise ConfigError(f"--layers is {text!r}", hint="a whole number, at least 0, or auto")
    return int(text)


def _pairs(
    source: list[str],
    query: str,
    document: str,
    queries: Path | None,
    documents: Path | None,
    max_unreadable: float,
) -> tuple[PairFile, list[str]]:
    """Return the pairs, and the documents named by id."""
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
        max_unreadable=max_unreadable,
    )
    return pairs, list((texts or {}).values())


def _loss(
    name: _LossName, temperature: float | None, margin: float | None, bidirectional: bool
) -> ContrastiveLoss:
    from idiolect.training.objectives import contrastive_losses as contrastive

    kinds: dict[_LossName, type[Any]] = {
        "infonce": contrastive.InfoNCE,
        "triplet": contrastive.Triplet,
        "margin": contrastive.Margin,
        "margin-mse": contrastive.MarginMSE,
        "kl": contrastive.KL,
    }
    values = given(temperature=temperature, margin=margin, bidirectional=bidirectional or None)
    unknown = set(values) - set(kinds[name].__dataclass_fields__)
    if unknown:
        raise ConfigError(f"the loss {name} has no {sorted(unknown)[0]}", hint="leave it out")
    loss: ContrastiveLoss = kinds[name](**values)
    return loss
