"""The original Transformer (2017, 1706.03762): post-norm, sinusoids, shared embeddings.

The layout is our own, so weights keep the network's names.
"""

from __future__ import annotations

from typing import Any

from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]

_PARTS = (
    *(f"{kind}.{part}" for kind in ("attention", "cross") for part in ("query", "key", "value")),
    *("attention.output", "attention_norm", "cross.output", "cross_norm"),
    *("feed_forward.up", "feed_forward.down", "feed_forward_norm"),
)


def _rules(side: str) -> tuple[Rule, ...]:
    names = (f"{side}.layers.{{n}}.{part}.*" for part in _PARTS)
    return tuple(Rule(name, name) for name in names)


def _configure(fields: Fields) -> dict[str, Any]:
    width = fields.get("hidden_size", 512)
    return {
        "hidden_size": width,
        "num_attention_heads": fields.get("num_attention_heads", 8),
        "intermediate_size": fields.get("intermediate_size", 2048),
        "num_encoder_layers": fields.get("num_encoder_layers", 6),
        "num_decoder_layers": fields.get("num_decoder_layers", 6),
        "norm_placement": "after_sum",
        "final_norm": False,
        "activation": activation(fields.get("hidden_act", "relu")),
        "position": "sinusoidal",
        "embedding_scale": max(width, 1) ** 0.5,
        "dropout": fields.get("dropout", 0.1),
        "attention_dropout": fields.get("attention_dropout", 0.0),
        "activation_dropout": fields.get("activation_dropout", 0.0),
        "decoder_start_token_id": fields.get_int("decoder_start_token_id"),
        "eos_token_id": fields.get_int("eos_token_id"),
    }


FAMILIES = (
    Family(
        model_type="transformer",
        title="Transformer",
        paper="Vaswani et al. 2017, arXiv 1706.03762",
        configure=_configure,
        has_own_layout=True,
        rules=(Rule("tokens.weight", "tokens.weight"), *_rules("encoder"), *_rules("decoder")),
        architectures={
            "TransformerForTranslation": Architecture(
                tasks=("language",),
                rules=(Rule("heads.language.weight", "heads.language.weight"),),
            )
        },
        synonyms={
            "d_model": "hidden_size",
            "encoder_layers": "num_encoder_layers",
            "decoder_layers": "num_decoder_layers",
        },
    ),
)
