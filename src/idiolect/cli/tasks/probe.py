"""`idiolect probe`: analyse the layers and heads of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from idiolect.cli.refusals import refuse_unused
from idiolect.cli.text_options import (
    FieldOption,
    MaxUnreadableOption,
    report_skipped,
)
from idiolect.cli.training_options import MaxLengthOption, SeedOption, local_device
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.tasks.classify.labelled_texts import LabelledText
    from idiolect.tasks.probes.pruning_tasks import PruningTask

__all__ = ["probe"]

_Value = TypeVar("_Value")

_LIBRARY = ("argparse", "asyncio", "collections", "email", "http", "json", "logging", "os", "re")


def probe(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model or a classifier: a directory or hub id.")],
    report: Annotated[Path, typer.Option(help="HTML page to write, with plots.")],
    texts: Annotated[
        list[str] | None,
        typer.Option(help="Files with texts. Default: docstrings of Python's standard library."),
    ] = None,
    tagged: Annotated[
        Path | None,
        typer.Option(help='Tagged sentences, "The_DT cat_NN" per line, for part of speech.'),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(help="Labelled texts, for a classifier: heads are pruned on its task."),
    ] = None,
    count: Annotated[int, typer.Option(help="Texts to read.", min=100, max=10**6)] = 1500,
    field: FieldOption = None,
    max_length: MaxLengthOption = 128,
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
) -> None:
    """Probe the layers and heads of a model, and write a page about them.

    Layer probes (part of speech, chunk, length, word content), attention patterns, importance and
    pruning of heads, and anisotropy: how alike the states of different texts are.

    Example: [bold]idiolect probe minilm --report probes.html[/bold]
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.errors import InputError
    from idiolect.tasks.classify.labelled_texts import read_labelled_texts
    from idiolect.tasks.classify.text_classifier import TextClassifier
    from idiolect.tasks.probes.probe_report import probe_page, summarize_probes
    from idiolect.tasks.probes.probe_run import probe as run
    from idiolect.tasks.probes.pruning_tasks import classifier_task
    from idiolect.tasks.probes.tagged_words import read_tagged
    from idiolect.text.corpus import Corpus
    from idiolect.text.files import write_atomic
    from idiolect.text.skipped import Skipped

    if not texts:
        refuse_unused(context, "it is a field of --texts", "field")
    skipped = Skipped()
    sentences = [] if tagged is None else read_tagged(tagged, skipped)
    report_skipped(skipped, "the tagged sentences")
    examples: Sequence[LabelledText] = []
    if labelled is not None:
        left_out = Skipped()
        examples = read_labelled_texts(labelled, skipped=left_out, max_unreadable=max_unreadable)
        report_skipped(left_out, labelled.name)
    if texts:
        corpus = Corpus(texts, field, max_unreadable=max_unreadable)
        found_texts = _some(list(corpus), count, seed)
        report_skipped(corpus.skipped)
    else:
        found_texts = _some([" ".join(s.words) for s in sentences] or _docstrings(), count, seed)
    task: PruningTask | None = None
    if (Path(model) / "classifier.json").is_file():
        classifier = TextClassifier.load(model, device=local_device())
        encoder = classifier.encoder
        if examples:
            drawn = _some(list(examples), len(examples), seed)
            task = classifier_task(classifier, drawn[::2][:500], drawn[1::2])
    elif examples:
        raise InputError(f"{model} is no classifier", hint="omit --labelled")
    else:
        encoder = Encoder.load(model, device=local_device())
    if max_length is not None and max_length < encoder.max_length:
        # The same object, since a classifier's task reads with it; tagged words need its limit.
        encoder.reader = encoder.with_changes(max_length=max_length).reader
        encoder.max_length = max_length
    tagged_some = _some(sentences, len(sentences), seed)
    found = run(encoder, found_texts, tagged=tagged_some, task=task, seed=seed)
    write_atomic(report, probe_page(found, model).encode())
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    for line in summarize_probes(found):
        typer.echo(line)
    if not sentences:
        typer.echo("part of speech and chunks were not probed: they need --tagged FILE")
    typer.echo(f"the page is {report}")


def _some(values: list[_Value], count: int, seed: int) -> list[_Value]:
    import random

    return random.Random(seed).sample(values, min(count, len(values)))


def _docstrings() -> list[str]:
    """Return the sentences of docstrings of Python's standard library."""
    import inspect
    import re
    from importlib import import_module

    found: dict[str, None] = {}
    for name in _LIBRARY:
        module = import_module(name)
        owners = [module, *(one for one in vars(module).values() if inspect.isclass(one))]
        for owner in owners:
            for member in [owner, *vars(owner).values()]:
                text = getattr(member, "__doc__", None)
                if isinstance(text, str):
                    plain = " ".join(text.split())
                    for sentence in re.split(r"(?<=[.!?]) ", plain):
                        if 4 <= len(sentence.split()) <= 60:
                            found[sentence] = None
    return list(found)
