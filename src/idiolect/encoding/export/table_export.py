"""A static encoder's rows as one array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError
from idiolect.models.model_directory import replacing

__all__ = ["export_table"]


def export_table(encoder: Encoder, directory: str | Path) -> None:
    """Write a static encoder as `embeddings.npy` and `tokenizer.json`, for any other program.

    The vector of a text is the mean of the rows of its ids, without special tokens. It is scaled to
    length one if the encoder normalizes. Token weights and any projection are already multiplied
    into the rows.

    Args:
        encoder: The encoder.
        directory: The directory, which need not exist.

    Raises:
        ConfigError: The encoder is not static.
        InputError: The directory cannot be written to.
    """
    network = encoder.model.network
    if not network.context_free:
        raise ConfigError(
            "only the rows of a static encoder can be exported", hint="make one with layers=0"
        )
    with torch.inference_mode():
        rows = encoder.pooled_rows([[token] for token in range(len(encoder.model.tokenizer))])
    with replacing(directory) as fresh:
        np.save(fresh / "embeddings.npy", rows.float().cpu().numpy(), allow_pickle=False)
        encoder.model.tokenizer.save(fresh)
