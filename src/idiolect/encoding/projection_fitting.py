"""Fit a projection to the vectors of texts, and fold it into the rows of a static model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from idiolect.encoding.encoder_forward import check_finite, usual_tokens_per_batch
from idiolect.encoding.projection import Projection
from idiolect.encoding.text_reader import EncodingCounts, TextReader, by_length
from idiolect.errors import InputError
from idiolect.models.language_model import LanguageModel
from idiolect.models.shallow import WHITENED, in_pieces, static_rows
from idiolect.text.arguments import list_of_texts
from idiolect.training.progress import show_progress

__all__ = ["fit_projection", "fold_projection"]

_TEXTS_PER_DIMENSION = 4
_ROW_LENGTH = 10.0
"""Median norm that rows are scaled to. Adam changes each element by about the learning rate. At
this norm, a rate that suits the token weights (around one) also suits the rows."""


def fit_projection(
    model: LanguageModel,
    reader: TextReader,
    pool_rows: Callable[[Sequence[Sequence[int]]], Tensor],
    texts: Sequence[str],
    *,
    whiten: bool,
) -> Projection:
    """Fit a projection to the vectors of a sample of texts; see `Encoder.project`.

    The vectors of a static model are whitened without centering. The map is then linear, so a new
    token that is initialized as the sum of its pieces' rows changes no vector. Encoders tuned from
    there also rank better (docs/results.md).

    Args:
        model: The encoder's model.
        reader: Converts texts to rows of ids.
        pool_rows: Returns the vectors of rows of ids. Shape: (rows, dimensions).
        texts: Documents.
        whiten: As in `Projection.fit`.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        texts = list_of_texts(texts)
    network = model.network
    step = max(1, len(texts) // (_TEXTS_PER_DIMENSION * network.config.hidden_size))
    sample = list_of_texts(texts[::step])
    rows = in_pieces(model, reader.read(sample, "document", EncodingCounts()))
    parts: list[Tensor] = []
    with torch.inference_mode(), show_progress("fitting the projection", len(rows)) as activity:
        for batch in by_length(rows, usual_tokens_per_batch(network)):
            parts.append(pool_rows([rows[i] for i in batch]).float().cpu())
            check_finite(parts[-1], [step * i for i in batch])
            activity.advance(len(batch))
    if not parts:
        raise InputError("all texts are empty", hint="pass texts to fit the projection to")
    fitted = Projection.fit(torch.cat(parts).numpy(), whiten=whiten, linear=network.context_free)
    return fitted.to(network.device)


def fold_projection(model: LanguageModel, projection: Projection, *, normalized: bool) -> None:
    """Multiply a projection into the rows of a static model.

    The mean of mapped rows is the mapped mean, so vectors do not change. The exception is texts
    with added tokens: the rows of these become the sums of their pieces' mapped rows.

    Args:
        model: The static model; it is changed in place.
        projection: The projection.
        normalized: Whether vectors are normalized. The rows are then also scaled, which does not
            change normalized vectors.
    """
    table = model.network.tokens.weight
    assert isinstance(table, Tensor)
    with torch.no_grad():
        rows = projection(table)
        if normalized:
            rows *= _ROW_LENGTH / rows.norm(dim=1).median()
        table.data = static_rows(rows, model.extension)
    model.settings[WHITENED] = True
