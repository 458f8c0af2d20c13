"""Errors for options without effect beside the others, and for outputs that would be lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from idiolect.errors import ConfigError, InputError

__all__ = [
    "refuse_epochs",
    "refuse_existing_model",
    "refuse_existing_vectors",
    "refuse_length_penalty",
    "refuse_lora",
    "refuse_unused",
]

_OF_LORA = ("lora_r", "lora_target_modules", "use_rslora", "use_dora")


def refuse_unused(context: typer.Context, reason: str, *names: str) -> None:
    """Refuse options that were typed, and that the command would not use.

    Without this, a wrong combination would run for hours as if the option had never been typed.
    Defaults are accepted.

    Args:
        context: The context of the command.
        reason: Why the options have no effect.
        names: The names of their parameters; those that the command lacks are ignored.

    Raises:
        ConfigError: One of them was typed.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        # By name, since the class of the source is no part of typer's interface.
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            option = max(parameter.opts, key=len)
            raise ConfigError(f"{option} would have no effect: {reason}", hint="leave it out")


def refuse_lora(context: typer.Context, choice: str) -> None:
    """Refuse the options of LoRA, given the option that chose to train something else.

    Raises:
        ConfigError: One of them was typed.
    """
    refuse_unused(context, f"{choice} trains no adapters", *_OF_LORA)


def refuse_epochs(context: typer.Context, steps: int | None) -> None:
    """Refuse epochs beside the total number of steps.

    Raises:
        ConfigError: Both were typed.
    """
    if steps is not None:
        refuse_unused(context, "--steps replaces it", "epochs")


def refuse_length_penalty(context: typer.Context, num_beams: int) -> None:
    """Refuse a length penalty without beams, whose scores it changes.

    Raises:
        ConfigError: It was typed, and there is one beam.
    """
    if num_beams == 1:
        refuse_unused(context, "--num-beams is 1", "length_penalty")


def refuse_existing_model(
    out: Path, marks: Sequence[str] = ("config.json", "tokenizer.json")
) -> None:
    """Refuse a directory that holds a model or a tokenizer, whose files would be removed.

    Args:
        out: The directory.
        marks: The files that tell.

    Raises:
        InputError: One of these files is there.
    """
    if any((out / name).exists() for name in marks):
        raise InputError(
            f"{out} already contains a model or tokenizer", hint="choose another --out"
        )


def refuse_existing_vectors(out: Path) -> None:
    """Refuse a file of word vectors, unless a run that writes it was interrupted.

    Raises:
        InputError: The file is there.
    """
    if out.is_file() and not out.with_name(f"{out.name}.run").exists():
        raise InputError(f"{out} already contains a set of vectors", hint="choose another --out")
