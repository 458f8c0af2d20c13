"""Whiten the rows of a static encoder, and export them as one array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError
from idiolect.models.model_directory import replacing
from idiolect.models.shallow import WHITENED, static_rows

__all__ = ["export_table", "fold_projection", "should_whiten"]

_ROW_LENGTH = 10.0
"""Median length of the rows. Adam moves each number by about the learning rate. At this length, a
rate that suits the tokens' weights, which are around one, also suits the rows."""


def should_whiten(encoder: Encoder) -> bool:
    """Return whether an encoder is static and its rows are still those of a language model.

    These share a dominant direction that makes all texts similar until it is removed.
    """
    model = encoder.model
    return model.network.context_free and not model.settings.get(WHITENED, False)


def fold_projection(encoder: Encoder) -> None:
    """Apply the projection of a static encoder to its rows, once and for all.

    The mean of mapped rows is the mapped mean, so vectors stay the same, except for texts with
    added tokens, whose rows become the sums of their pieces' mapped rows. If vectors are
    normalized, the rows are also scaled, which vectors do not depend on.

    Args:
        encoder: The encoder; it is changed in place.

    Raises:
        ConfigError: It is not static, or has no projection.
    """
    network = encoder.model.network
    if not network.context_free or encoder.projection is None:
        raise ConfigError("there is nothing to fold", hint="project a static encoder first")
    table = network.tokens.weight
    assert isinstance(table, Tensor)
    with torch.no_grad():
        rows = encoder.projection(table)
        if encoder.normalize:
            rows *= _ROW_LENGTH / rows.norm(dim=1).median()
        table.data = static_rows(rows, encoder.model.extension)
    encoder.projection = None
    encoder.model.settings[WHITENED] = True


def export_table(encoder: Encoder, directory: str | Path) -> None:
    """Write a static encoder as `embeddings.npy` and `tokenizer.json`, for any other program.

    A text's vector is the mean of the rows of its ids, without special tokens; if the encoder
    normalizes, scaled to length one. The tokens' weights are multiplied into the rows.

    Args:
        encoder: The encoder, without a projection.
        directory: The directory, which need not exist.

    Raises:
        ConfigError: The encoder is not static, or has a projection.
        InputError: The directory cannot be written to.
    """
    network = encoder.model.network
    if not network.context_free or encoder.projection is not None:
        raise ConfigError(
            "only the rows of a static encoder can be exported",
            hint="make one with layers=0, and fold its projection first",
        )
    ids = torch.arange(len(encoder.model.tokenizer), device=network.device)
    with torch.inference_mode():
        rows = network.text_states(ids[None])[0].float().cpu().numpy()
    with replacing(directory) as fresh:
        np.save(fresh / "embeddings.npy", rows, allow_pickle=False)
        encoder.model.tokenizer.save(fresh)
