"""`idiolect tasks classify train | predict | evaluate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from idiolect.tasks.classify.labelled_texts import LabelledText
    from idiolect.tasks.classify.text_classifier import TextClassifier

__all__ = ["evaluate", "predict", "train"]

_TextField = Annotated[str, typer.Option("--text", help="Field of the text.")]
_PairField = Annotated[
    str | None, typer.Option("--text-pair", help="Field of the second text of a pair.")
]
_LabelField = Annotated[str, typer.Option("--label", help="Field of the label.")]
_ModelArgument = Annotated[Path, typer.Argument(help="A trained classifier, such as OUT/model.")]


def train(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines or Parquet file.")],
    encoder: Annotated[str, typer.Option(help="The base: a directory or a hub id.")],
    out: RunFolderOption,
    valid: Annotated[
        Path | None, typer.Option(help="Examples to calibrate the probabilities on.")
    ] = None,
    text: _TextField = "text",
    text_pair: _PairField = None,
    label: _LabelField = "label",
    adaptation: AdaptationOption = "full",
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label", help="A text may have several labels: a list, or a;b, or none."
        ),
    ] = False,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Weight labels by the inverse of their frequency.")
    ] = False,
    transfer: Annotated[
        str,
        typer.Option(
            help="plain; ulmfit: learning rates by layer, gradual unfreezing, concat pooling; "
            "gpt1: an auxiliary language-model loss; or a .toml file, which may adapt the base "
            "first.",
        ),
    ] = "plain",
    epochs: EpochsOption = 3,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Read longer texts in windows that overlap by this many tokens. Default: "
            "truncate.",
            min=0,
            max=100_000,
        ),
    ] = None,
    max_length: MaxLengthOption = None,
    batch_size: BatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Train a classifier. Run it again to resume.

    Example: [bold]idiolect tasks classify train train.jsonl --encoder minilm --valid dev.jsonl
    -o runs/topics[/bold]

    With --transfer FILE.toml: its table `fine_tuning` has a recipe and changes to it. The table
    `adaptation` has the steps and texts for adapting the base first, in OUT/adapted.
    """
    from idiolect.tasks.classify.labelled_texts import labels_of
    from idiolect.tasks.classify.multi_label import MultiLabelClassifier
    from idiolect.tasks.classify.text_classifier import TextClassifier
    from idiolect.tasks.finetuning.domain_adaptation import adapt_to_domain
    from idiolect.tasks.finetuning.recipe import read_transfer
    from idiolect.tasks.finetuning.text_states import concat_pooling_by_default

    methods, adaptation_settings = read_transfer(transfer)
    config = task_settings(
        context, adaptation, batch_size, learning_rate, precision, save_steps, seed
    )
    examples = _read(file, text, text_pair, label, max_unreadable, multi_label)
    # Read before training, so that errors in it are reported early.
    held_out = valid and _read(valid, text, text_pair, label, max_unreadable, multi_label)
    base = load_base(encoder, max_length)
    pairs = text_pair is not None
    model = (MultiLabelClassifier if multi_label else TextClassifier)(
        base,
        labels_of(examples),
        pairs=pairs,
        concat_pooling=methods.concat_pooling
        or concat_pooling_by_default(base, adaptation, pairs=pairs),
        stride=stride,
        seed=seed,
    )
    if held_out:
        model.targets(held_out)
    if adaptation_settings:
        own = [one for e in examples for one in (e.text, e.text_pair) if one is not None]
        frozen = {"unfreeze_original_rows": methods.unfreeze_original_rows, "seed": seed}
        adapt_to_domain(base, own, output_dir=out / "adapted", **(frozen | adaptation_settings))
    model.train(
        examples,
        output_dir=out,
        adaptation=adaptation,
        epochs=epochs,
        balanced=balanced,
        lora=lora_config(lora_r, lora_target_modules) if adaptation == "lora" else None,
        config=config,
        fine_tuning=methods,
    )
    if held_out:
        typer.echo(f"temperature: {model.calibrate(held_out):.3f}")
        model.save_record(out / "model")
    typer.echo(f"the classifier is in {out / 'model'}")


def predict(
    model: _ModelArgument,
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines or Parquet file.")],
    out: PredictionsOption,
    text: _TextField = "text",
    text_pair: _PairField = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Write the most probable label, or the labels, and all probabilities of each text.

    Example: [bold]idiolect tasks classify predict runs/topics/model new.jsonl -o out.jsonl[/bold]
    """
    from idiolect.tasks.classify.multi_label import MultiLabelClassifier, load_classifier
    from idiolect.text.files import write_atomic

    examples = _read(file, text, text_pair, None, max_unreadable)
    loaded = load_classifier(model, device=local_device())
    lines = []
    for example, row in zip(examples, loaded.probabilities(examples), strict=True):
        shares = {name: round(float(p), 6) for name, p in zip(loaded.labels, row, strict=True)}
        line: dict[str, object] = {"text": example.text}
        if example.text_pair is not None:
            line["text_pair"] = example.text_pair
        if isinstance(loaded, MultiLabelClassifier):
            line["labels"] = [n for n, p in zip(loaded.labels, row, strict=True) if p > 0.5]
        else:
            line["label"] = loaded.labels[int(row.argmax())]
        lines.append(json.dumps(line | {"probabilities": shares}, ensure_ascii=False))
    write_atomic(out, ("\n".join(lines) + "\n").encode())
    typer.echo(f"{len(lines):,} predictions are in {out}")


def evaluate(
    model: _ModelArgument,
    file: Annotated[Path, typer.Argument(help="Examples with labels.")],
    train_file: Annotated[
        Path, typer.Option("--train", help="Training examples, for the baselines.")
    ],
    text: _TextField = "text",
    text_pair: _PairField = None,
    label: _LabelField = "label",
    errors: ErrorsOption = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a classifier beside TF-IDF logistic regression and the majority label.

    Example: [bold]idiolect tasks classify evaluate runs/topics/model test.jsonl
    --train train.jsonl --errors errors.html[/bold]
    """
    from idiolect.tasks.classify.multi_label import MultiLabelClassifier, load_classifier
    from idiolect.text.files import write_atomic

    loaded = load_classifier(model, device=local_device())
    several = isinstance(loaded, MultiLabelClassifier)
    examples = _read(file, text, text_pair, label, max_unreadable, several)
    known = _read(train_file, text, text_pair, label, max_unreadable, several)
    evaluated = _several(loaded, known, examples) if several else _one(loaded, known, examples)
    if errors is not None:
        write_atomic(errors, evaluated.page.encode())
    if as_json:
        result = {name: one.as_dict() for name, one in evaluated.scores.items()}
        typer.echo(json.dumps({"labels": loaded.labels, "texts": len(examples), **result}))
    else:
        _show(evaluated, len(examples))


@dataclass(frozen=True)
class _Evaluated:
    scores: dict[str, Any]
    """Metrics by system name."""
    columns: dict[str, str]
    """The metrics to show, by field name."""
    page: str


def _one(
    model: TextClassifier, known: list[LabelledText], examples: list[LabelledText]
) -> _Evaluated:
    from idiolect.errors import InputError
    from idiolect.tasks.classify.classification_baselines import (
        TfidfClassifier,
        majority_probabilities,
    )
    from idiolect.tasks.classify.classification_metrics import score_classes
    from idiolect.tasks.classify.errors_page import errors_page

    truth = model.numbers(examples)
    model.numbers(known)
    baseline = TfidfClassifier(known)
    if baseline.labels != model.labels:
        raise InputError(
            "the training file has other labels than the classifier",
            hint="give the file it was trained on",
        )
    found = {
        "classifier": model.probabilities(examples),
        "TF-IDF + logistic regression": baseline.probabilities(examples),
        "majority label": majority_probabilities(known, model.labels, len(examples)),
    }
    scores = {name: score_classes(shares, truth) for name, shares in found.items()}
    columns = {"accuracy": "accuracy", "macro_f1": "macro-F1", "nll": "NLL", "ece": "ECE"}
    page = errors_page(scores, model.labels, examples, found["classifier"])
    return _Evaluated(scores, columns, page)


def _several(
    model: TextClassifier, known: list[LabelledText], examples: list[LabelledText]
) -> _Evaluated:
    from idiolect.tasks.classify.multi_label import multi_label_baselines
    from idiolect.tasks.classify.multi_label_metrics import multi_label_page, score_multi_label

    truth = model.targets(examples)
    model.targets(known)
    own = model.probabilities(examples)
    found = {"classifier": own, **multi_label_baselines(known, model.labels, examples)}
    scores = {name: score_multi_label(shares, truth) for name, shares in found.items()}
    columns = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "subset_accuracy": "all right"}
    page = multi_label_page(scores, model.labels, examples, own, truth)
    return _Evaluated(scores, columns | {"nll": "NLL", "ece": "ECE"}, page)


def _show(evaluated: _Evaluated, count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{count:,} texts", title_justify="left")
    table.add_column("system", no_wrap=True)
    for name in evaluated.columns.values():
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in evaluated.scores.items():
        table.add_row(name, *(f"{getattr(one, field):.4f}" for field in evaluated.columns))
    Console().print(table)


def _read(
    path: Path,
    text: str,
    text_pair: str | None,
    label: str | None,
    max_unreadable: float,
    multi_label: bool = False,
) -> list[LabelledText]:
    from idiolect.tasks.classify.labelled_texts import read_labelled_texts
    from idiolect.text.skipped import Skipped

    skipped = Skipped()
    found = read_labelled_texts(
        path,
        text=text,
        label=label,
        text_pair=text_pair,
        multi_label=multi_label,
        skipped=skipped,
        max_unreadable=max_unreadable,
    )
    report_skipped(skipped, path.name)
    return found
