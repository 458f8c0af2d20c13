"""Vectors of texts and their language-model loss, from one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pooling import pool
from idiolect.errors import ConfigError
from idiolect.tasks.finetuning.auxiliary_loss import next_token_loss
from idiolect.tasks.finetuning.concat_pooling import concat_pool

__all__ = ["concat_pooling_by_default", "read_texts", "vector_width"]


def concat_pooling_by_default(encoder: Encoder, adaptation: str, *, pairs: bool) -> bool:
    """Return whether a classifier should use concat pooling if nobody asks for either.

    A network that does not train cannot move what a task needs into its vector, and more of it is
    in the last, highest and mean states together (measured in docs/tasks.md).
    """
    return adaptation == "frozen" and not pairs and not encoder.model.network.context_free


def vector_width(encoder: Encoder, *, concat_pooling: bool) -> int:
    """Return the width of the vectors of `read_texts`.

    Raises:
        ConfigError: Concat pooling of a static encoder, whose token vectors have no context.
    """
    if not concat_pooling:
        return encoder.dimensions
    if encoder.model.network.context_free:
        raise ConfigError("concat pooling of a static encoder", hint="omit concat_pooling")
    return 3 * int(encoder.model.network.config.hidden_size)


def read_texts(
    encoder: Encoder,
    rows: Sequence[Sequence[int]],
    *,
    concat_pooling: bool = False,
    language_loss: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the vector of each text, and the summed next-token loss (0 unless requested).

    Shape: (texts, `vector_width`), and a scalar.

    Args:
        encoder: The encoder.
        rows: Ids that its `reader` returned.
        concat_pooling: Pool by `concat_pool` instead of as the encoder does.
        language_loss: Whether to compute the loss; see `next_token_loss`.
    """
    network = encoder.model.network
    if not concat_pooling and not language_loss:
        vectors = encoder.pooled_rows(rows)
        return vectors, vectors.new_zeros(())
    hidden, mask = encoder.read_rows(rows)
    loss = hidden.new_zeros(())
    if language_loss:
        ids = [torch.tensor(row, dtype=torch.long) for row in rows]
        padded = pad_sequence(ids, batch_first=True).to(hidden.device)
        loss = next_token_loss(network, hidden, padded, mask)
    if concat_pooling:
        return concat_pool(hidden, mask), loss
    vectors = pool(encoder.pooling, hidden, mask)
    return vectors if encoder.projection is None else encoder.projection(vectors), loss
