"""Make a model of another's first layers, or a static model of its embedding rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.models.weight_files import open_weights, write_weights
from idiolect.nn.embedding import joined_rows
from idiolect.nn.static_network import StaticNetwork
from idiolect.text.tokenizers.extension import Extension

__all__ = [
    "WHITENED",
    "first_layers",
    "in_pieces",
    "kept_rows",
    "quantize_table",
    "static_rows",
]

WHITENED = "whitened"
"""The field in a static model's `config.json` that marks rows with a projection folded into them.
"""


def first_layers(model: LanguageModel, count: int | str) -> LanguageModel:
    """Return a model that consists of the first layers of another.

    With one or more layers it shares the other's weights. With none it is an independent static
    model: a copy of the embedding rows, with a weight for each token and no context.

    Args:
        model: The model, which stays unchanged.
        count: Number of layers.

    Raises:
        ConfigError: The model does not have that many layers, or cannot be truncated.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        hint = "a whole number, at least 0"
        if count == "auto":
            hint = 'only pairs can choose: tune(encoder, pairs, layers="auto", …)'
        raise ConfigError(f"layers is {count!r}", hint=hint)
    if count == 0:
        return _static(model)
    try:
        network = model.network.first_layers(count)
    except InputError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    name = model.family.synonyms.get("num_hidden_layers", "num_hidden_layers")
    whole = len(model.network.blocks)
    # Lists with one entry per layer, such as `layer_types`, are truncated as well.
    settings = {
        key: value[:count] if isinstance(value, list) and len(value) == whole else value
        for key, value in model.settings.items()
    }
    return model.with_changes(network=network, settings=settings | {name: count})


def static_rows(rows: Tensor, extension: Extension | None) -> Tensor:
    """Replace the rows of added tokens by the sums of their pieces' rows, in place.

    The sum of a text's rows is then the same as before the vocabulary was extended, so new tokens
    do no harm before training.

    Shape: rows and result (vocabulary, width).
    """
    for token in extension.added if extension is not None else ():
        rows[token.id] = rows[list(token.pieces)].sum(0)
    return rows


@contextmanager
def kept_rows(model: LanguageModel) -> Iterator[None]:
    """Freeze the original rows of a static model while it trains, until the context exits.

    Meanwhile its added rows are a separate parameter, as in any extended vocabulary.

    Args:
        model: The static model.
    """
    network = model.network
    assert isinstance(network, StaticNetwork)
    network.keeps_rows = True
    if model.extension is not None and model.extension.added:
        first = min(token.id for token in model.extension.added)
        table = joined_rows(network.tokens.weight)
        added, table.data = table.detach()[first:].clone(), table.detach()[:first]
        network.add_rows(first, {"tokens.weight": added})
    try:
        yield
    finally:
        network.keeps_rows = False
        table = joined_rows(network.tokens.weight).detach()
        network.tokens = nn.Embedding(len(table), table.shape[1], _weight=table)


def in_pieces(model: LanguageModel, rows: list[list[int]]) -> list[list[int]]:
    """Replace added tokens by their pieces in the texts on which a static model is whitened.

    Before whitening, the row of an added token is the sum of its pieces' rows. A text with added
    tokens has the same sum but fewer tokens, so its mean vector is longer, especially along the
    direction common to all rows, which whitening should remove.
    """
    extension = model.extension
    if extension is None or not model.network.context_free or model.settings.get(WHITENED, False):
        return rows
    return [extension.to_base(row) for row in rows]


def quantize_table(directory: Path) -> None:
    """Store the rows of a saved static model as 8-bit integers, in place.

    Each row has its own scale, its largest absolute value / 127, by which the token's weight is
    multiplied. Other programs that support token weights, such as model2vec, read the same vectors.
    """
    weights = open_weights(directory)
    tensors = {name: weights[name].clone() for name in weights.names}
    rows = tensors["embeddings"].float()
    step = rows.abs().amax(1).clamp(min=1e-30) / 127
    tensors["embeddings"] = (rows / step[:, None]).round().to(torch.int8)
    tensors["weights"] = tensors["weights"].float() * step
    for old in directory.glob("model*.safetensors*"):
        old.unlink()
    write_weights(directory, tensors)


def _static(model: LanguageModel) -> LanguageModel:
    rows = joined_rows(model.network.tokens.weight)
    rows = rows.detach().to("cpu", torch.float32)[: len(model.tokenizer)].clone()
    settings = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "hidden_dim": rows.shape[1],
        "normalize": True,
    }
    static = LanguageModel.new(settings, model.tokenizer)
    static.network.tokens.weight.data = static_rows(rows, model.extension)
    static.network.to(model.network.device)
    return static
