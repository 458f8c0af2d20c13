"""Recurrent language models. Their `config.json` is our own: there is no published one to follow.

    {"model_type": "lstm", "hidden_size": 650, "num_layers": 2, "dropout": 0.5}

`hidden_size` is the size of the layers. In AWD-LSTM the last one has the size of the embedding, to
which the output is tied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from idiolect.errors import ConfigError
from idiolect.models.family import Architecture, Family, Fields
from idiolect.models.weight_names import Rule
from idiolect.nn.recurrent.recurrent_cells import CellKind
from idiolect.nn.recurrent.recurrent_config import RecurrentConfig
from idiolect.nn.recurrent.recurrent_network import RecurrentNetwork

__all__ = ["FAMILIES"]

_AWD = {
    "embedding_dropout": 0.1,
    "input_dropout": 0.4,
    "hidden_dropout": 0.25,
    "output_dropout": 0.4,
    "weight_dropout": 0.5,
    "activation_regularization": 2.0,
    "temporal_activation_regularization": 1.0,
}
"""The published dropout rates of AWD-LSTM on the Penn Treebank."""
_SAME = ("input_dropout", "hidden_dropout", "output_dropout")
"""The fields that the single `dropout` of the other families sets."""


def _settings(fields: Fields, cell: CellKind, *, awd: bool) -> dict[str, Any]:
    size = fields.get("hidden_size", 1150 if awd else 200)
    embedding = fields.get("embedding_size", min(size, 400) if awd else size)
    tied = fields.get("tie_word_embeddings", True)
    if not awd and tied and embedding != size:
        # Checked here to report the names of config.json; only AWD-LSTM has a narrower last layer.
        raise ConfigError(
            f"embedding_size is {embedding} and hidden_size {size}, and the output is tied",
            hint="set tie_word_embeddings to false, or choose model_type awd-lstm, whose last "
            "layer has the size of the embedding",
        )
    dropout = fields.get("dropout", 0.0)
    rates = _AWD if awd else {name: dropout if name in _SAME else 0.0 for name in _AWD}
    shape = "sequence" if awd else "element"
    return {
        "cell": cell,
        "num_layers": fields.get("num_layers", 3 if awd else 2),
        "inner_size": size,
        "embedding_size": embedding,
        "hidden_size": embedding if awd and tied else size,
        "head_bias": fields.get("head_bias", True),
        "dropout_shape": fields.get("dropout_shape", shape),
        **{name: float(fields.get(name, rate)) for name, rate in rates.items()},
    }


def _configure(cell: CellKind, *, awd: bool = False) -> Callable[[Fields], dict[str, Any]]:
    return lambda fields: _settings(fields, cell, awd=awd)


def _configure_rnn(fields: Fields) -> dict[str, Any]:
    nonlinearity = fields.get_one_of("nonlinearity", "tanh", ("tanh", "relu"))
    settings = _settings(fields, "relu" if nonlinearity == "relu" else "tanh", awd=False)
    return settings | {"vanishing_penalty": float(fields.get("vanishing_penalty", 0.0))}


def _make_config(*, num_labels: int, **values: Any) -> RecurrentConfig:
    """Build the configuration; no head of the family has labels."""
    return RecurrentConfig(**values)


def _family(
    model_type: str, title: str, paper: str, configure: Callable[[Fields], dict[str, Any]]
) -> Family:
    return Family(
        model_type=model_type,
        title=title,
        paper=paper,
        configure=configure,
        rules=(
            Rule("embedding.weight", "tokens.weight"),
            *(
                Rule(f"layers.{{n}}.{name}", f"layers.{{n}}.{name}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ),
        ),
        architectures={
            "RecurrentForCausalLM": Architecture(
                tasks=("language",), rules=(Rule("head.*", "heads.language.*"),)
            )
        },
        synonyms={"num_hidden_layers": "num_layers"},
        has_own_layout=True,
        network=RecurrentNetwork,
        make_config=_make_config,
    )


FAMILIES = (
    _family("rnn", "RNN", "Elman 1990; relu: Le et al. 2015, 1504.00941", _configure_rnn),
    _family("lstm", "LSTM", "Hochreiter and Schmidhuber 1997", _configure("lstm")),
    _family("gru", "GRU", "Cho et al. 2014, 1406.1078", _configure("gru")),
    _family("awd-lstm", "AWD-LSTM", "Merity et al. 2017, 1708.02182", _configure("lstm", awd=True)),
)
