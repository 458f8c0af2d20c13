"""`idiolect evaluate tasks`: evaluate a language model on question files."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from idiolect.cli.refusals import refuse_unused

__all__ = ["evaluate_tasks"]


def evaluate_tasks(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model: a directory, GGUF file or hub id.")],
    files: Annotated[list[Path], typer.Argument(help="Files of questions (.jsonl, also .gz).")],
    num_fewshot: Annotated[
        int, typer.Option(help="Few-shot examples before each question.", min=0)
    ] = 0,
    pool: Annotated[
        Path | None, typer.Option(help="File to draw the examples from. Default: the same file.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Use only the first questions of each file.", min=1)
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Maximum tokens of an answer.", min=1)] = 32,
    predictions: Annotated[
        Path | None, typer.Option(help="Also write each question's answer (.jsonl).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the examples.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")] = False,
) -> None:
    """Evaluate a language model on questions, as lm-evaluation-harness does.

    The most likely answer is scored (acc; acc_norm divides by characters, acc_bytes by bytes), or a
    generated answer is compared (exact_match, f1). Each metric has a 95 % bootstrap interval.

    Example: [bold]idiolect evaluate tasks smollm2 arc_easy.jsonl.gz --limit 48 --json[/bold]
    """
    from rich.console import Console

    from idiolect.cli.training_options import local_device
    from idiolect.generate.generator import Generator
    from idiolect.models.language_model import LanguageModel
    from idiolect.tasks.harness.question_evaluation import evaluate_questions
    from idiolect.tasks.harness.questions import read_questions
    from idiolect.text.files import write_atomic
    from idiolect.training.progress import show_progress, status

    if not num_fewshot:
        refuse_unused(context, "--num-fewshot is 0", "pool")
    sets = {name: read_questions(path, limit=limit) for name, path in _named(files).items()}
    examples = None if pool is None else read_questions(pool)
    with status("loading the model"):
        generator = Generator(LanguageModel.load(model, device=local_device()))
    results: dict[str, dict[str, float]] = {}
    answers: list[dict[str, Any]] = []
    for name, questions in sets.items():
        with show_progress(f"answering {name}", len(questions)) as activity:
            for metrics in evaluate_questions(
                generator,
                questions,
                num_fewshot=num_fewshot,
                pool=examples,
                max_new_tokens=max_new_tokens,
                seed=seed,
                keep=lambda answer, name=name: answers.append({"task": name, **answer}),  # type: ignore[misc]
            ):
                if metrics is None:
                    activity.advance()
                else:
                    results[name] = metrics
    if predictions is not None:
        lines = "".join(json_module.dumps(row, ensure_ascii=False) + "\n" for row in answers)
        write_atomic(predictions, lines.encode())
    if json:
        summary = {"model": model, "num_fewshot": num_fewshot, "seed": seed, "results": results}
        typer.echo(json_module.dumps(summary, indent=2))
        return
    Console().print(_table(results))


def _named(files: list[Path]) -> dict[str, Path]:
    """Return the files by their names up to the first dot, or by their paths if these are equal."""
    files = list(dict.fromkeys(files))
    names = [path.name.partition(".")[0] for path in files]
    return {
        name if names.count(name) == 1 else str(path): path
        for name, path in zip(names, files, strict=True)
    }


def _table(results: dict[str, dict[str, float]]) -> Any:
    from rich.table import Table

    table = Table(title="Questions", title_justify="left")
    for heading in ("file", "questions", "metric", "value", "95 % interval"):
        table.add_column(heading, justify="left" if heading in ("file", "metric") else "right")
    for name, metrics in results.items():
        for metric in (key for key in metrics if f"{key}_low" in metrics):
            table.add_row(
                name,
                f"{metrics['n']:,}",
                metric,
                f"{metrics[metric]:.3f}",
                f"{metrics[f'{metric}_low']:.3f} – {metrics[f'{metric}_high']:.3f}",
            )
    return table
