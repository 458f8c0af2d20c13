"""`idiolect tasks translate train | predict | evaluate`; `train` is also `idiolect translate`'s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from idiolect.cli.refusals import refuse_length_penalty
from idiolect.cli.tasks.task_options import ErrorsOption, JsonOption, PredictionsOption
from idiolect.cli.training_options import local_device
from idiolect.cli.translate.train import train
from idiolect.errors import InputError

if TYPE_CHECKING:
    from idiolect.tasks.translator import Translator

__all__ = ["evaluate", "predict", "train"]

_LONGEST = 1 << 20
"""Maximum bytes of a line."""
_ModelArgument = Annotated[str, typer.Argument(help="A translator, such as OUT/model.")]
_SourceFile = Annotated[
    Path, typer.Argument(help="File with one text per line; optionally compressed.")
]
_Beams = Annotated[int, typer.Option(help="Beams; 1 is greedy.", min=1, max=1000)]
_LengthPenalty = Annotated[
    float,
    typer.Option(help="Beam scores are divided by the length to this power.", min=-10, max=10),
]
_AtOnce = Annotated[int, typer.Option(help="Texts per batch.", min=1, max=100_000)]


def predict(
    context: typer.Context,
    model: _ModelArgument,
    source: _SourceFile,
    out: PredictionsOption,
    num_beams: _Beams = 5,
    length_penalty: _LengthPenalty = 1.0,
    batch_size: _AtOnce = 64,
) -> None:
    """Write the translation of each line.

    Example: [bold]idiolect tasks translate predict runs/de-en/model test.de -o out.jsonl[/bold]
    """
    from idiolect.text.files import write_atomic

    refuse_length_penalty(context, num_beams)
    texts = _lines(source)
    found = _translator(model, num_beams, length_penalty, batch_size).translate(
        texts, progress=True
    )
    lines = [
        json.dumps({"text": text, "translation": translation}, ensure_ascii=False)
        for text, translation in zip(texts, found, strict=True)
    ]
    write_atomic(out, ("\n".join(lines) + "\n").encode())
    typer.echo(f"{len(lines):,} translations are in {out}")


def evaluate(
    context: typer.Context,
    model: _ModelArgument,
    source: _SourceFile,
    reference: Annotated[Path, typer.Argument(help="File with the right translation of each.")],
    num_beams: _Beams = 5,
    length_penalty: _LengthPenalty = 1.0,
    batch_size: _AtOnce = 64,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Ignore case.")] = False,
    tokenize: Annotated[
        str, typer.Option(help="sacrebleu's tokeniser: 13a for raw text, none for tokens.")
    ] = "13a",
    errors: ErrorsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate translations by BLEU, with its signature, beside the untranslated texts.

    Example: [bold]idiolect tasks translate evaluate runs/de-en/model test.de test.en --errors
    errors.html[/bold]
    """
    from idiolect.tasks.bleu import bleu, sentence_bleu
    from idiolect.tasks.html_report import html_page, html_table
    from idiolect.text.files import write_atomic

    refuse_length_penalty(context, num_beams)
    texts, references = _lines(source), _lines(reference)
    if len(texts) != len(references):
        raise InputError(
            f"{reference} has {len(references):,} lines for {len(texts):,} texts",
            hint="line by line they must be translations of one another",
        )
    if empty := [n for n, line in enumerate(references, 1) if not line]:
        raise InputError(
            f"{reference}, line {empty[0]:,}: the reference is empty",
            hint="remove the line in both files, or translate it",
        )
    loaded = _translator(model, num_beams, length_penalty, batch_size)
    found = loaded.translate(texts, progress=True)
    scores = {
        "translator": bleu(found, references, lowercase=lowercase, tokenize=tokenize),
        "untranslated": bleu(texts, references, lowercase=lowercase, tokenize=tokenize),
    }
    if errors is not None:
        each = sentence_bleu(found, references, lowercase=lowercase, tokenize=tokenize)
        order = sorted(range(len(texts)), key=lambda i: each[i])[:50]
        worst = [[f"{each[i]:.1f}", texts[i], references[i], found[i]] for i in order]
        page = html_page(
            f"Translations of {len(texts):,} texts",
            {
                "Measures": html_table(
                    ["system", "BLEU"], [[name, str(one)] for name, one in scores.items()]
                ),
                "Worst translations": html_table(
                    ["BLEU", "text", "reference", "translation"], worst
                ),
            },
        )
        write_atomic(errors, page.encode())
    if as_json:
        result = {
            name: {"bleu": one.score, "signature": one.signature} for name, one in scores.items()
        }
        typer.echo(json.dumps({"texts": len(texts), **result}))
    else:
        for name, one in scores.items():
            typer.echo(f"{name}: {one}")


def _translator(model: str, num_beams: int, length_penalty: float, batch_size: int) -> Translator:
    from idiolect.models.language_model import LanguageModel
    from idiolect.tasks.translator import Translator

    return Translator(
        LanguageModel.load(model, device=local_device()),
        num_beams=num_beams,
        length_penalty=length_penalty,
        batch_size=batch_size,
    )


def _lines(path: Path) -> list[str]:
    from idiolect.text.record_types.text_lines import read_all_lines

    found = [line.strip() for line in read_all_lines(path, _LONGEST)]
    if not any(found):
        raise InputError(f"{path} has no text", hint="give a file with a text a line")
    return found
