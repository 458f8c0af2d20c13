"""`idiolect words evaluate`."""

from __future__ import annotations

import json as json_format
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.cli.text_options import report_skipped
from idiolect.cli.training_options import SeedOption

if TYPE_CHECKING:
    from idiolect.tasks.probes.word_probes import WordProbe
    from idiolect.words.evaluation import WordScore
    from idiolect.words.word_comparison import Agreement
    from idiolect.words.word_datasets import WordTestSet
    from idiolect.words.word_vectors import WordVectors

__all__ = ["evaluate"]


def evaluate(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Files of vectors and of test sets, in any order; folders of test sets; "
            "directories of models, whose embedding matrix is evaluated."
        ),
    ],
    tests: Annotated[
        list[Path] | None, typer.Option("--test", help="A test set; repeatable.")
    ] = None,
    tagged: Annotated[
        list[Path] | None,
        typer.Option(
            help="Sentences such as The_DT cat_NN, a file or a folder: tag parts of speech and "
            "chunks with the frozen vectors; repeatable."
        ),
    ] = None,
    labelled: Annotated[
        list[Path] | None,
        typer.Option(
            help="Records with text and label: classify them, by sentiment for example, with the "
            "frozen vectors; repeatable."
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page (.html) with plots.")] = None,
    method: Annotated[
        Literal["3cosadd", "3cosmul"], typer.Option(help="How analogies are solved.")
    ] = "3cosadd",
    case_sensitive: Annotated[
        bool, typer.Option("--case-sensitive", help="Do not lower-case the test sets.")
    ] = False,
    seed: SeedOption = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Evaluate word vectors on test sets, and compare several models.

    Each file is recognised by its content, as vectors or as a test set: pairs of words with a
    score (relatedness), lines of four words (analogies, in sections that begin with ":"), or a CSV
    with the columns category and word.

    Example: [bold]idiolect words evaluate words.safetensors questions-words.txt --json[/bold]
    """
    from idiolect.tasks.probes.word_probes import probe_words
    from idiolect.words.evaluation import coherence, evaluate_words
    from idiolect.words.word_comparison import compare_neighbours
    from idiolect.words.word_report import write_word_report

    lowercase = not case_sensitive
    probes = _read_probes(tagged or [], labelled or [], lowercase=lowercase)
    models, sets = _read(files, tests or [], lowercase=lowercase, probes=len(probes))
    scores: dict[str, list[WordScore]] = {
        name: [evaluate_words(one, test, method=method, seed=seed) for test in sets]
        + [probe_words(one, task, seed=seed) for task in probes]
        for name, one in models.items()
    }
    agreements: list[Agreement] = []
    examples: dict[str, dict[str, list[str]]] = {}
    if len(models) > 1:
        names = list(models)
        for place, name in enumerate(names):
            judge = models[names[(place + 1) % len(names)]]
            scores[name].append(coherence(models[name], judge, seed=seed))
        agreements, examples = compare_neighbours(models, seed=seed)
    if report is not None:
        write_word_report(report, scores, agreements, examples)
    if json:
        result = {
            "models": {name: [_plain(asdict(one)) for one in own] for name, own in scores.items()},
            "agreement": [asdict(one) for one in agreements],
        }
        typer.echo(json_format.dumps(result))
        return
    _print(scores)
    if report is not None:
        typer.echo(f"report: {report}")


def _read(
    files: list[Path], tests: list[Path], *, lowercase: bool, probes: int
) -> tuple[dict[str, WordVectors], list[WordTestSet]]:
    from idiolect.errors import InputError
    from idiolect.models.language_model import LanguageModel
    from idiolect.words.model_rows import vectors_of_model
    from idiolect.words.vector_formats import holds_vectors
    from idiolect.words.word_datasets import read_test_set
    from idiolect.words.word_vectors import WordVectors

    models: dict[str, WordVectors] = {}
    sets = []
    for file in files:
        if (file / "config.json").exists():
            name = file.name if file.name not in models else str(file)
            models[name] = vectors_of_model(LanguageModel.load(file))
        elif file.is_dir():
            sets.extend(_read_folder(file, lowercase=lowercase))
        elif holds_vectors(file):
            name = file.stem if file.stem not in models else str(file)
            models[name] = WordVectors.load(file)
        else:
            sets.append(read_test_set(file, lowercase=lowercase))
    sets.extend(read_test_set(file, lowercase=lowercase) for file in tests)
    if not models:
        raise InputError("no vectors among the files", hint="pass a file of vectors first")
    if not sets and not probes and len(models) < 2:
        raise InputError("nothing to evaluate on", hint="pass a test set, or several models")
    return models, sets


def _read_probes(tagged: list[Path], labelled: list[Path], *, lowercase: bool) -> list[WordProbe]:
    from idiolect.tasks.classify.labelled_texts import read_labelled_texts
    from idiolect.tasks.probes.tagged_words import read_tagged
    from idiolect.tasks.probes.word_probes import tagging_probes, text_probe
    from idiolect.text.skipped import Skipped
    from idiolect.words.word_stream import split_words

    probes: list[WordProbe] = []
    for path in tagged:
        skipped = Skipped()
        probes += tagging_probes(path.stem, read_tagged(path, skipped), lowercase=lowercase)
        report_skipped(skipped, path.name)
    for path in labelled:
        skipped = Skipped()
        texts = read_labelled_texts(path, skipped=skipped)
        split = split_words if lowercase else str.split
        probes.append(text_probe(path.name.split(".")[0], texts, split=split))
        report_skipped(skipped, path.name)
    return probes


def _read_folder(folder: Path, *, lowercase: bool) -> list[WordTestSet]:
    """Read the test sets in a folder and its subfolders; report other files."""
    from idiolect.errors import InputError
    from idiolect.words.word_datasets import read_test_set

    sets, others = [], []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            found = read_test_set(file, lowercase=lowercase)
            # Published sets of several languages often have the same file name.
            name = file.relative_to(folder).with_name(found.name).as_posix()
            sets.append(replace(found, name=name))
        except InputError:
            others.append(file.name)
    if others:
        shown = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        typer.echo(f"{folder}: left out {len(others):,} that are no test sets: {shown}", err=True)
    return sets


def _plain(value: Any) -> Any:
    """Replace NaN, which JSON does not support, with null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _print(scores: dict[str, list[WordScore]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    baselines = list(
        dict.fromkeys(name for own in scores.values() for one in own for name in one.baselines)
    )
    for column in ("test", "kind", "model", "score", "all", "answered", *baselines):
        table.add_column(column)
    for column_scores in zip(*scores.values(), strict=True):
        for name, one in zip(scores, column_scores, strict=True):
            table.add_row(
                one.test,
                one.kind,
                name,
                f"{one.score:.4f}",
                f"{one.score_all:.4f}",
                f"{one.answered:,} of {one.questions:,}",
                *(f"{one.baselines[n]:.4f}" if n in one.baselines else "" for n in baselines),
            )
    Console().print(table)
