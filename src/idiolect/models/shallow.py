"""Models of the first layers of another one, down to none: its embedding rows alone."""

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
"""The field of a static model's `config.json` that says that a projection was folded into its rows.
"""


def first_layers(model: LanguageModel, count: int | str) -> LanguageModel:
    """Return a model of the first layers of another.

    With one or more layers it shares the other's weights. With none it is a static model of its
    own: a copy of the embedding rows, without context, with a weight for each token.

    Args:
        model: The model, which stays unchanged.
        count: Number of layers.

    Raises:
        ConfigError: The model does not have so many layers, or cannot be cut.
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
    # A list with an entry for each layer, such as `layer_types`, is cut as well.
    settings = {
        key: value[:count] if isinstance(value, list) and len(value) == whole else value
        for key, value in model.settings.items()
    }
    return model.with_changes(network=network, settings=settings | {name: count})


def static_rows(rows: Tensor, extension: Extension | None) -> Tensor:
    """Replace the rows of added tokens by the sums of their pieces' rows, in place.

    A text's summed vector is then the same as before the vocabulary was extended, so new tokens
    cannot do harm at the start.

    Shape: rows (vocabulary, width), and so the result.
    """
    for token in extension.added if extension is not None else ():
        rows[token.id] = rows[list(token.pieces)].sum(0)
    return rows


@contextmanager
def kept_rows(model: LanguageModel) -> Iterator[None]:
    """Keep the original rows of a static model as they are while it trains.

    Its added rows are a parameter of their own meanwhile, as in any extended vocabulary.

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
    """Replace added tokens by their pieces in the rows that a static model is whitened by.

    Their rows are the sums of the pieces' rows until the model is whitened. But a text with sums
    has fewer tokens, so its mean is longer, most of all along the direction that all rows share,
    which whitening is to remove.
    """
    extension = model.extension
    if extension is None or not model.network.context_free or model.settings.get(WHITENED, False):
        return rows
    return [extension.to_base(row) for row in rows]


def quantize_table(directory: Path) -> None:
    """Store the rows of a saved static model as 8-bit integers, in place.

    Each row has a step of its own, its largest number / 127, which its token's weight is multiplied
    by. Other programs that know weights, such as model2vec, read the same vectors.
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
