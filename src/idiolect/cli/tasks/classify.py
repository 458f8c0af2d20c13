"""`idiolect tasks classify train | predict | evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from idiolect.tasks.classify.classification_metrics import ClassificationScores
    from idiolect.tasks.classify.labelled_texts import LabelledText

__all__ = ["evaluate", "predict", "train"]

_TextField = Annotated[str, typer.Option("--text", help="Field of the text.")]
_PairField = Annotated[
    str | None, typer.Option("--text-pair", help="Field of the second text of a pair.")
]
_LabelField = Annotated[str, typer.Option("--label", help="Field of the label.")]
_ModelArgument = Annotated[Path, typer.Argument(help="A trained classifier, such as OUT/model.")]


def train(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON Lines or Parquet file.")],
    encoder: Annotated[str, typer.Option(help="The base: a directory or a hub id.")],
    out: RunFolderOption,
    valid: Annotated[
        Path | None, typer.Option(help="Examples that calibrate the probabilities.")
    ] = None,
    text: _TextField = "text",
    text_pair: _PairField = None,
    label: _LabelField = "label",
    adaptation: AdaptationOption = "full",
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Weigh labels by the inverse of their frequency.")
    ] = False,
    epochs: EpochsOption = 3,
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
    """
    from idiolect.tasks.classify.labelled_texts import labels_of
    from idiolect.tasks.classify.text_classifier import TextClassifier

    config = task_settings(adaptation, batch_size, learning_rate, precision, save_steps, seed)
    examples = _read(file, text, text_pair, label, max_unreadable)
    # Read before training, so that a mistake in it does not show only afterwards.
    held_out = valid and _read(valid, text, text_pair, label, max_unreadable)
    base = load_base(encoder, max_length)
    model = TextClassifier(base, labels_of(examples), pairs=text_pair is not None, seed=seed)
    if held_out:
        model.numbers(held_out)
    model.train(
        examples,
        output_dir=out,
        adaptation=adaptation,
        epochs=epochs,
        balanced=balanced,
        lora=lora_config(lora_r, lora_target_modules) if adaptation == "lora" else None,
        config=config,
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
    """Write the most probable label and all probabilities of each text.

    Example: [bold]idiolect tasks classify predict runs/topics/model new.jsonl -o out.jsonl[/bold]
    """
    from idiolect.tasks.classify.text_classifier import TextClassifier
    from idiolect.text.files import write_atomic

    examples = _read(file, text, text_pair, None, max_unreadable)
    loaded = TextClassifier.load(model, device=local_device())
    lines = []
    for example, row in zip(examples, loaded.probabilities(examples), strict=True):
        shares = {name: round(float(p), 6) for name, p in zip(loaded.labels, row, strict=True)}
        line = {"text": example.text}
        if example.text_pair is not None:
            line["text_pair"] = example.text_pair
        found = {"label": loaded.labels[int(row.argmax())], "probabilities": shares}
        lines.append(json.dumps(line | found, ensure_ascii=False))
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
    """Measure a classifier beside TF-IDF with logistic regression and the majority label.

    Example: [bold]idiolect tasks classify evaluate runs/topics/model test.jsonl
    --train train.jsonl --errors errors.html[/bold]
    """
    from idiolect.tasks.classify.classification_baselines import (
        TfidfClassifier,
        majority_probabilities,
    )
    from idiolect.tasks.classify.classification_metrics import score_classes
    from idiolect.tasks.classify.errors_page import errors_page
    from idiolect.tasks.classify.text_classifier import TextClassifier
    from idiolect.text.files import write_atomic

    loaded = TextClassifier.load(model, device=local_device())
    examples = _read(file, text, text_pair, label, max_unreadable)
    known = _read(train_file, text, text_pair, label, max_unreadable)
    truth = loaded.numbers(examples)
    loaded.numbers(known)
    baseline = TfidfClassifier(known)
    if baseline.labels != loaded.labels:
        from idiolect.errors import InputError

        raise InputError(
            f"{train_file} has other labels than the classifier",
            hint="give the file it was trained on",
        )
    found = {
        "classifier": loaded.probabilities(examples),
        "TF-IDF + logistic regression": baseline.probabilities(examples),
        "majority label": majority_probabilities(known, loaded.labels, len(examples)),
    }
    scores = {name: score_classes(shares, truth) for name, shares in found.items()}
    if errors is not None:
        page = errors_page(scores, loaded.labels, examples, found["classifier"])
        write_atomic(errors, page.encode())
    if as_json:
        result = {name: one.as_dict() for name, one in scores.items()}
        typer.echo(json.dumps({"labels": loaded.labels, "texts": len(examples), **result}))
    else:
        _show(scores, len(examples))


def _show(scores: dict[str, ClassificationScores], count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{count:,} texts", title_justify="left")
    for name in ("system", "accuracy", "macro-F1", "NLL", "ECE"):
        table.add_column(name, justify="left" if name == "system" else "right", no_wrap=True)
    for name, one in scores.items():
        measures = (one.accuracy, one.macro_f1, one.nll, one.ece)
        table.add_row(name, *(f"{value:.4f}" for value in measures))
    Console().print(table)


def _read(
    path: Path, text: str, text_pair: str | None, label: str | None, max_unreadable: float
) -> list[LabelledText]:
    from idiolect.tasks.classify.labelled_texts import read_labelled_texts
    from idiolect.text.skipped import Skipped

    skipped = Skipped()
    found = read_labelled_texts(
        path,
        text=text,
        label=label,
        text_pair=text_pair,
        skipped=skipped,
        max_unreadable=max_unreadable,
    )
    report_skipped(skipped, path.name)
    return found
