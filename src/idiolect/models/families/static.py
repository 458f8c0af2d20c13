"""Static embeddings: one row per token, in the layout of model2vec and sentence-transformers."""

from __future__ import annotations

from typing import Any

from idiolect.models.family import Architecture, Family, Fields
from idiolect.models.weight_names import Rule
from idiolect.nn.static_network import StaticNetwork

__all__ = ["FAMILIES"]


def _configure(fields: Fields) -> dict[str, Any]:
    return {
        "hidden_size": fields.get("hidden_dim", 256),
        "num_attention_heads": 1,
        "intermediate_size": 1,
        "num_encoder_layers": 1,
        "position": "none",
    }


FAMILIES = (
    Family(
        model_type="model2vec",
        title="static embeddings",
        paper="Tulkens and van Dongen 2024, model2vec",
        configure=_configure,
        rules=(
            Rule("embeddings", "tokens.weight"),
            Rule("weights", "token_weights.values"),
        ),
        architectures={"StaticModel": Architecture()},
        synonyms={"hidden_size": "hidden_dim"},
        network=StaticNetwork,
    ),
)
