"""`idiolect tasks tag train | predict | evaluate | convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.refusals import refuse_unused
from idiolect.cli.tasks.task_options import (
    AdaptationOption,
    ErrorsOption,
    JsonOption,
    PredictionsOption,
    load_base,
    task_settings,
)
from idiolect.cli.text_options import MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import (
    BatchSizeOption,
    EpochsOption,
    LearningRateOption,
    LoraModulesOption,
    LoraRankOption,
    MaxLengthOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    SeedOption,
    local_device,
    lora_config,
)
from idiolect.text.records import has_fields
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from idiolect.tasks.tag.tagged_texts import TaggedText
    from idiolect.tasks.tag.tagging_metrics import TaggingScores

__all__ = ["convert", "evaluate", "predict", "train"]

_Scheme = Literal["iob1", "iob2", "bioes"]
_FILE = "CoNLL file, or JSON Lines with text and spans."
_TaggedFile = Annotated[Path, typer.Argument(help=_FILE)]
_ModelArgument = Annotated[Path, typer.Argument(help="A trained tagger, such as OUT/model.")]
_TokenColumn = Annotated[
    int, typer.Option(help="Column of the word in a CoNLL file, from 0.", min=-1000, max=1000)
]
_TagColumn = Annotated[
    int, typer.Option(help="Column of the tag; -1 is the last.", min=-1000, max=1000)
]
_FileScheme = Annotated[
    _Scheme | None,
    typer.Option("--file-scheme", help="The scheme of the file. Default: all are accepted."),
]


def train(
    context: typer.Context,
    file: _TaggedFile,
    encoder: Annotated[str, typer.Option(help="The base: a directory or a hub id.")],
    out: RunFolderOption,
    crf: Annotated[
        bool, typer.Option("--crf", help="Score sequences of tags, not each tag alone.")
    ] = False,
    scheme: Annotated[
        Literal["iob2", "bioes"], typer.Option(help="How the model encodes spans as tags.")
    ] = "iob2",
    stride: Annotated[
        int, typer.Option(help="Tokens that neighbouring windows share.", min=0, max=100_000)
    ] = 64,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional", help="Let a decoder's words attend to later ones.")
    ] = False,
    token_column: _TokenColumn = 0,
    tag_column: _TagColumn = -1,
    file_scheme: _FileScheme = None,
    adaptation: AdaptationOption = "full",
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    epochs: EpochsOption = 3,
    max_length: MaxLengthOption = None,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Train a tagger of spans. Run it again to resume.

    Example: [bold]idiolect tasks tag train train.conll --encoder minilm --crf
    -o runs/diseases[/bold]
    """
    from idiolect.tasks.tag.tagged_texts import span_labels
    from idiolect.tasks.tag.text_tagger import TextTagger

    config = task_settings(
        context, adaptation, batch_size, learning_rate, precision, save_steps, seed
    )
    _refuse_columns(context, file)
    texts = _read(file, True, file_scheme, token_column, tag_column, max_unreadable)
    base = load_base(encoder, max_length, bidirectional=bidirectional)
    labels = span_labels(texts)
    model = TextTagger(base, labels, crf=crf, scheme=scheme, stride=stride, seed=seed)
    model.train(
        texts,
        output_dir=out,
        adaptation=adaptation,
        epochs=epochs,
        lora=lora_config(lora_r, lora_target_modules) if adaptation == "lora" else None,
        config=config,
    )
    typer.echo(f"the tagger is in {out / 'model'}; labels: {', '.join(labels)}")


def predict(
    context: typer.Context,
    model: _ModelArgument,
    file: _TaggedFile,
    out: PredictionsOption,
    token_column: _TokenColumn = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Write the spans of each text, in characters.

    The result is JSON Lines if its name ends in .jsonl, otherwise a CoNLL file in IOB2.

    Example: [bold]idiolect tasks tag predict runs/diseases/model new.jsonl -o out.jsonl[/bold]
    """
    from idiolect.tasks.tag.tagged_texts import TaggedText, write_tagged_texts
    from idiolect.tasks.tag.text_tagger import TextTagger

    _refuse_columns(context, file)
    texts = _read(file, False, None, token_column, -1, max_unreadable)
    found = TextTagger.load(model, device=local_device()).predict(texts, progress=True)
    tagged = [TaggedText(t.text, t.words, f.spans) for t, f in zip(texts, found, strict=True)]
    write_tagged_texts(out, tagged, "iob2")
    count = sum(len(one.spans) for one in found)
    typer.echo(f"{count:,} spans in {len(texts):,} texts are in {out}")


def evaluate(
    context: typer.Context,
    model: _ModelArgument,
    file: _TaggedFile,
    train_file: Annotated[
        Path | None, typer.Option("--train", help="Training texts, for the dictionary baseline.")
    ] = None,
    token_column: _TokenColumn = 0,
    tag_column: _TagColumn = -1,
    file_scheme: _FileScheme = None,
    errors: ErrorsOption = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a tagger, strictly: a span is right if its ends and its label are.

    With --train, a dictionary of the training spans is evaluated as a baseline.

    Example: [bold]idiolect tasks tag evaluate runs/diseases/model test.conll --train train.conll
    --errors errors.html[/bold]
    """
    from idiolect.tasks.tag.tagging_metrics import confuse_words, score_spans
    from idiolect.tasks.tag.tagging_page import tagging_page
    from idiolect.tasks.tag.text_tagger import TextTagger
    from idiolect.tasks.tag.training_dictionary import TrainingDictionary
    from idiolect.text.files import write_atomic

    _refuse_columns(context, file, *([train_file] if train_file else []))
    columns = (file_scheme, token_column, tag_column, max_unreadable)
    texts = _read(file, True, *columns)
    known = train_file and _read(train_file, True, *columns)
    loaded = TextTagger.load(model, device=local_device())
    loaded.check_labels(texts)
    truth = [text.spans or () for text in texts]
    found = loaded.predict(texts, progress=True)
    spans = [one.spans for one in found]
    scores = {"tagger": score_spans(truth, spans)}
    if known:
        loaded.check_labels(known)
        scores["training dictionary"] = score_spans(truth, TrainingDictionary(known).tag(texts))
    invalid = sum(one.invalid for one in found)
    if errors is not None:
        page = tagging_page(scores, loaded.labels, texts, found)
        write_atomic(errors, page.encode())
    if as_json:
        result = {name: one.as_dict() for name, one in scores.items()}
        confusion = confuse_words(texts, spans, loaded.labels)
        own = {"labels": loaded.labels, "texts": len(texts), "invalid_transitions": invalid}
        typer.echo(json.dumps({**own, "confusion": confusion, **result}))
    else:
        _show(scores, len(texts))
        typer.echo(f"invalid transitions between tags: {invalid:,}")


def convert(
    context: typer.Context,
    file: _TaggedFile,
    out: Annotated[Path, typer.Argument(help="CoNLL file, or JSON Lines if it ends in .jsonl.")],
    to: Annotated[_Scheme, typer.Option(help="The scheme of a CoNLL file.")] = "iob2",
    token_column: _TokenColumn = 0,
    tag_column: _TagColumn = -1,
    file_scheme: _FileScheme = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Convert tagged texts between IOB1, IOB2, BIOES and JSON Lines with character offsets.

    Example: [bold]idiolect tasks tag convert train.conll train.jsonl[/bold]
    """
    from idiolect.tasks.tag.tagged_texts import write_tagged_texts

    _refuse_columns(context, file)
    if has_fields(out):
        refuse_unused(context, f"{out.suffix} files have offsets instead of tags", "to")
    texts = _read(file, True, file_scheme, token_column, tag_column, max_unreadable)
    write_tagged_texts(out, texts, to)
    spans = sum(len(text.spans or ()) for text in texts)
    typer.echo(f"{len(texts):,} texts with {spans:,} spans are in {out}")


def _refuse_columns(context: typer.Context, *files: Path) -> None:
    """Refuse the options of CoNLL files if all files are files of records."""
    if all(has_fields(file) for file in files):
        reason = f"{files[0].suffix} files have the fields text and spans"
        refuse_unused(context, reason, "token_column", "tag_column", "file_scheme")


def _show(scores: dict[str, TaggingScores], count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{count:,} texts", title_justify="left")
    for name in ("system", "label", "precision", "recall", "F1", "spans"):
        justify: Literal["left", "right"] = "left" if name in ("system", "label") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for name, system in scores.items():
        rows = {"all": system.micro} | (system.labels if len(system.labels) > 1 else {})
        for label, one in rows.items():
            measures = (f"{value:.4f}" for value in (one.precision, one.recall, one.f1))
            table.add_row(name, label, *measures, f"{one.support:,}")
    Console().print(table)


def _read(
    path: Path,
    tagged: bool,
    scheme: _Scheme | None,
    token_column: int,
    tag_column: int,
    max_unreadable: float,
) -> list[TaggedText]:
    from idiolect.tasks.tag.tagged_texts import read_tagged_texts
    from idiolect.text.skipped import Skipped

    skipped = Skipped()
    found = read_tagged_texts(
        path,
        tagged=tagged,
        scheme=scheme,
        token_column=token_column,
        tag_column=tag_column,
        skipped=skipped,
        max_unreadable=max_unreadable,
    )
    report_skipped(skipped, path.name)
    return found
