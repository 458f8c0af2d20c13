"""Merge a trained adapter, and vocabulary rows trained with it, into a base model.

There are three ways to use the result of training over a quantised base:

    the adapter alone    `run/adapter`, in peft's layout: for the same base, quantised or not
    merged as trained    `run/model`: the update is added to the quantised weights
    merged in full       `merge_adapter`: the update is added to the weights before quantisation,
                         which are more precise but differ from those seen in training
"""

from __future__ import annotations

from pathlib import Path

import torch

from idiolect.errors import CheckpointError
from idiolect.models.adapter import load_adapter
from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.lora import merge_lora

__all__ = ["merge_adapter"]


def merge_adapter(model: LanguageModel, source: str | Path) -> list[str]:
    """Merge an adapter into a model's weights, in place.

    Args:
        model: The base, in full precision or quantised; adapted weights that are quantised are
            converted to full precision.
        source: The directory of an adapter, or the folder of a `pretrain` run. From a run, the
            added vocabulary rows that were trained with the adapter are copied as well.

    Returns:
        The names of the layers that were adapted.

    Raises:
        CheckpointError: Files are missing or damaged, or belong to another base.
        ConfigError: The kind of adapter is not supported.
    """
    source = Path(source)
    is_run = (source / "adapter").is_dir()
    trained = LanguageModel.load(source / "model") if is_run else None
    if trained is not None and trained.tokenizer.fingerprint != model.tokenizer.fingerprint:
        raise CheckpointError(
            f"the run in {source} trained a model with another tokenizer",
            hint="merge it into the model that the run started from",
        )
    names = load_adapter(model, source / "adapter" if is_run else source)
    if trained is not None:
        _copy_added_rows(trained, model)
    merge_lora(model.network)
    return names


@torch.no_grad()
def _copy_added_rows(trained: LanguageModel, model: LanguageModel) -> None:
    theirs = trained.network.vocabulary_rows()
    for name, rows in model.network.vocabulary_rows().items():
        other = theirs[name]
        if not isinstance(rows, ExtendedRows):
            continue
        if not isinstance(other, ExtendedRows) or other.added.shape != rows.added.shape:
            raise CheckpointError(
                f"the rows of {name} that the run trained are not those of the base",
                hint="merge it into the model that the run started from",
            )
        rows.added.copy_(other.added)
