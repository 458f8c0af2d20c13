"""`idiolect tasks summarise train | predict | evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from idiolect.cli.refusals import refuse_length_penalty, refuse_lora
from idiolect.cli.tasks.task_options import ErrorsOption, JsonOption, PredictionsOption
from idiolect.cli.text_options import MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import (
    EpochsOption,
    LearningRateOption,
    LoraModulesOption,
    LoraRankOption,
    MaxLengthOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    SeedOption,
    given,
    local_device,
    lora_config,
)
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from idiolect.tasks.summarise.rouge import Rouge
    from idiolect.tasks.summarise.summarised_texts import SummarisedText

__all__ = ["evaluate", "predict", "train"]

_TextField = Annotated[str, typer.Option("--text", help="Field of the text or its sentences.")]
_SummaryField = Annotated[
    str, typer.Option("--summary", help="Field of the summary, or of a list of several.")
]
_TextFile = Annotated[Path, typer.Argument(help="JSON Lines, CSV, TSV or Parquet file.")]
_ModelArgument = Annotated[str, typer.Argument(help="A trained summariser, such as OUT/model.")]
_Beams = Annotated[int, typer.Option(help="Beams; 1 is greedy.", min=1, max=1000)]
_LengthPenalty = Annotated[
    float,
    typer.Option(help="Beam scores are divided by the length to this power.", min=-10, max=10),
]
_NoRepeat = Annotated[
    int, typer.Option(help="No n-gram of this size occurs twice; 0: no limit.", min=0, max=1000)
]
_AtOnce = Annotated[int, typer.Option(help="Texts per batch.", min=1, max=100_000)]


def train(
    context: typer.Context,
    file: _TextFile,
    model: Annotated[str, typer.Option(help="A decoder or an encoder-decoder.")],
    out: RunFolderOption,
    text: _TextField = "text",
    summary: _SummaryField = "summary",
    prompt: Annotated[
        str, typer.Option(help="Prompt after the text, for a decoder.")
    ] = "\n\nTL;DR:",
    max_new_tokens: Annotated[
        int, typer.Option(help="Maximum tokens of a summary.", min=1, max=100_000)
    ] = 64,
    adaptation: Annotated[
        Literal["full", "lora"], typer.Option(help="Train the network, or adapters.")
    ] = "full",
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    epochs: EpochsOption = 3,
    max_length: MaxLengthOption = None,
    batch_tokens: Annotated[
        int, typer.Option(help="Size of a batch: texts times the longest.", min=1, max=10_000_000)
    ] = 4096,
    learning_rate: LearningRateOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Train a summariser. Run it again to resume.

    Example: [bold]idiolect tasks summarise train train.jsonl --model smollm2 --adaptation lora
    -o runs/tldr[/bold]
    """
    from idiolect.models.language_model import LanguageModel
    from idiolect.tasks.summarise.summariser import Summariser, summary_config

    if adaptation != "lora":
        refuse_lora(context, f"--adaptation {adaptation}")
    chosen = given(learning_rate=learning_rate, precision=precision, save_steps=save_steps)
    config = summary_config(adaptation, seed=seed, **chosen)
    texts = _read(file, text, summary, max_unreadable)
    summariser = Summariser(
        LanguageModel.load(model, device=local_device()),
        prompt=prompt,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
    )
    summariser.train(
        texts,
        output_dir=out,
        adaptation=adaptation,
        epochs=epochs,
        batch_tokens=batch_tokens,
        lora=lora_config(lora_r, lora_target_modules) if adaptation == "lora" else None,
        config=config,
    )
    typer.echo(f"the summariser is in {out / 'model'}")


def predict(
    context: typer.Context,
    model: _ModelArgument,
    file: _TextFile,
    out: PredictionsOption,
    text: _TextField = "text",
    num_beams: _Beams = 1,
    length_penalty: _LengthPenalty = 1.0,
    no_repeat_ngram_size: _NoRepeat = 3,
    batch_size: _AtOnce = 16,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Write a summary of each text. Untrained models are only prompted.

    Example: [bold]idiolect tasks summarise predict runs/tldr/model new.jsonl -o out.jsonl[/bold]
    """
    from idiolect.text.files import write_atomic

    refuse_length_penalty(context, num_beams)
    texts = _read(file, text, None, max_unreadable)
    found = _summaries(model, texts, num_beams, length_penalty, no_repeat_ngram_size, batch_size)
    lines = [
        json.dumps({"text": one.text, "summary": summary}, ensure_ascii=False)
        for one, summary in zip(texts, found, strict=True)
    ]
    write_atomic(out, ("\n".join(lines) + "\n").encode())
    typer.echo(f"{len(lines):,} summaries are in {out}")


def evaluate(
    context: typer.Context,
    model: _ModelArgument,
    file: _TextFile,
    text: _TextField = "text",
    summary: _SummaryField = "summary",
    num_beams: _Beams = 1,
    length_penalty: _LengthPenalty = 1.0,
    no_repeat_ngram_size: _NoRepeat = 3,
    batch_size: _AtOnce = 16,
    stemmer: Annotated[bool, typer.Option(help="Compare the stems of words.")] = True,
    errors: ErrorsOption = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    as_json: JsonOption = False,
) -> None:
    """Evaluate summaries by ROUGE, beside the first sentence and the best one (an oracle).

    Example: [bold]idiolect tasks summarise evaluate runs/tldr/model test.jsonl --errors
    errors.html[/bold]
    """
    from idiolect.tasks.summarise.extractive_baselines import best_sentence, first_sentence
    from idiolect.tasks.summarise.rouge import rouge
    from idiolect.tasks.summarise.summaries_page import summaries_page
    from idiolect.text.files import write_atomic

    refuse_length_penalty(context, num_beams)
    texts = _read(file, text, summary, max_unreadable)
    references = [one.summaries for one in texts]
    # Check before the slow generation of summaries whether ROUGE is installed.
    lead = rouge(first_sentence(texts), references, use_stemmer=stemmer)
    found = _summaries(model, texts, num_beams, length_penalty, no_repeat_ngram_size, batch_size)
    best = best_sentence(texts, use_stemmer=stemmer)
    scores = {
        "summariser": rouge(found, references, use_stemmer=stemmer),
        "first sentence": lead,
        "best sentence (oracle)": rouge(best, references, use_stemmer=stemmer),
    }
    if errors is not None:
        write_atomic(errors, summaries_page(scores, texts, found).encode())
    if as_json:
        typer.echo(json.dumps({name: one.as_dict() for name, one in scores.items()}))
    else:
        _show(scores, len(texts))


def _summaries(
    model: str,
    texts: list[SummarisedText],
    num_beams: int,
    length_penalty: float,
    no_repeat_ngram_size: int,
    batch_size: int,
) -> list[str]:
    from idiolect.models.language_model import LanguageModel
    from idiolect.tasks.summarise.summariser import Summariser

    if (Path(model) / "summariser.json").exists():
        summariser = Summariser.load(model, device=local_device())
    else:
        summariser = Summariser(LanguageModel.load(model, device=local_device()))
    return summariser.summarise(
        [one.text for one in texts],
        num_beams=num_beams,
        length_penalty=length_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
        batch_size=batch_size,
        progress=True,
    )


def _show(scores: dict[str, Rouge], count: int) -> None:
    from rich.console import Console
    from rich.table import Table

    first = next(iter(scores.values()))
    table = Table(title=f"{count:,} texts; {first.settings}", title_justify="left")
    for name in ("system", "ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum"):
        table.add_column(name, justify="left" if name == "system" else "right", no_wrap=True)
    for name, one in scores.items():
        measures = (one.rouge1, one.rouge2, one.rouge_l, one.rouge_lsum)
        table.add_row(name, *(f"{value:.2f}" for value in measures))
    Console().print(table)
    if first.without_words:
        typer.echo(
            f"{first.without_words:,} texts have no reference with a Latin letter or a digit, "
            "which rouge-score does not count: they score 0",
            err=True,
        )


def _read(
    path: Path, text: str, summary: str | None, max_unreadable: float
) -> list[SummarisedText]:
    from idiolect.tasks.summarise.summarised_texts import read_summarised_texts
    from idiolect.text.skipped import Skipped

    skipped = Skipped()
    found = read_summarised_texts(
        path, text=text, summary=summary, skipped=skipped, max_unreadable=max_unreadable
    )
    report_skipped(skipped, path.name)
    return found
