"""ModernBERT (2412.13663): a pre-norm encoder with rotary positions and local attention in most
layers.
"""

from __future__ import annotations

from typing import Any

from idiolect.models.families.config_fields import layer_windows, layered_rotary
from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule
from idiolect.nn.config import PoolKind

__all__ = ["FAMILIES"]

_POOLS: dict[str, PoolKind] = {"cls": "first", "mean": "mean"}


def _configure(fields: Fields) -> dict[str, Any]:
    layers = fields.get("num_hidden_layers", 22)
    every = fields.get("global_attn_every_n_layers", 3)
    # The published window covers both directions: half to the left, half to the right.
    window = fields.get("local_attention", 128) // 2 + 1
    head_activation = activation(fields.get("classifier_activation", "gelu"))
    return {
        "hidden_size": fields.get("hidden_size", 768),
        "num_attention_heads": fields.get("num_attention_heads", 12),
        "intermediate_size": fields.get("intermediate_size", 1152),
        "num_encoder_layers": layers,
        "norm_eps": fields.get("norm_eps", 1e-5),
        "norm_bias": fields.get("norm_bias", False),
        "first_attention_norm": False,
        "embedding_norm": True,
        "activation": activation(fields.get("hidden_activation", "gelu")),
        "gated": True,
        "query_bias": fields.get("attention_bias", False),
        "output_bias": fields.get("attention_bias", False),
        "feed_forward_bias": fields.get("mlp_bias", False),
        "position": "rotary",
        "max_position_embeddings": fields.get("max_position_embeddings", 8192),
        "attention_dropout": fields.get("attention_dropout", 0.0),
        "activation_dropout": fields.get("mlp_dropout", 0.0),
        "pad_token_id": fields.get("pad_token_id", 50283),
        "head_transform_bias": fields.get("classifier_bias", False),
        "head_activation": head_activation,
        "head_bias": fields.get("decoder_bias", True),
        "pool": _POOLS[fields.get_one_of("classifier_pooling", "cls", _POOLS)],
        "pool_activation": head_activation,
        **layered_rotary(
            fields, theta=("global_rope_theta", 160_000.0), local_theta=("local_rope_theta", 1e4)
        ),
        **layer_windows(fields, window, [n % max(every, 1) != 0 for n in range(layers)]),
    }


_LAYER = "encoder.layers.{n}"
_RULES = (
    Rule("embeddings.tok_embeddings.weight", "tokens.weight"),
    Rule("embeddings.norm.*", "encoder.embedding_norm.*"),
    Rule("layers.{n}.attn_norm.*", f"{_LAYER}.attention_norm.*"),
    Rule(
        "layers.{n}.attn.Wqkv.*",
        (
            f"{_LAYER}.attention.query.*",
            f"{_LAYER}.attention.key.*",
            f"{_LAYER}.attention.value.*",
        ),
    ),
    Rule("layers.{n}.attn.Wo.*", f"{_LAYER}.attention.output.*"),
    Rule("layers.{n}.mlp_norm.*", f"{_LAYER}.feed_forward_norm.*"),
    Rule("layers.{n}.mlp.Wi.*", (f"{_LAYER}.feed_forward.gate.*", f"{_LAYER}.feed_forward.up.*")),
    Rule("layers.{n}.mlp.Wo.*", f"{_LAYER}.feed_forward.down.*"),
    Rule("final_norm.*", "encoder.final_norm.*"),
)


def _transform(ours: str) -> tuple[Rule, ...]:
    return (
        Rule("head.dense.*", f"{ours}.dense.*", bare=True),
        Rule("head.norm.*", f"{ours}.norm.*", bare=True),
    )


FAMILIES = (
    Family(
        model_type="modernbert",
        title="ModernBERT",
        paper="arXiv 2412.13663",
        configure=_configure,
        rules=_RULES,
        architectures={
            "ModernBertForMaskedLM": Architecture(
                tasks=("language",),
                prefix="model.",
                rules=(
                    *_transform("heads.language"),
                    Rule("decoder.bias", "heads.language.bias", bare=True),
                    Rule("decoder.weight", "heads.language.weight", bare=True),
                ),
                config={"pool": "none", "head_transform": True},
            ),
            "ModernBertModel": Architecture(config={"pool": "none"}),
            "ModernBertForSequenceClassification": Architecture(
                tasks=("sequence",),
                prefix="model.",
                rules=(
                    *_transform("pooler"),
                    Rule("classifier.*", "heads.sequence.output.*", bare=True),
                ),
                config={"pool_dense": True, "pool_norm": True},
            ),
            "ModernBertForTokenClassification": Architecture(
                tasks=("token",),
                prefix="model.",
                rules=(
                    *_transform("heads.token"),
                    Rule("classifier.*", "heads.token.output.*", bare=True),
                ),
                config={"pool": "none", "head_transform": True},
            ),
            "ModernBertForQuestionAnswering": Architecture(
                tasks=("span",),
                prefix="model.",
                rules=(
                    *_transform("heads.span"),
                    Rule("classifier.*", "heads.span.output.*", bare=True),
                ),
                config={"pool": "none", "head_transform": True},
            ),
        },
        aliases={"decoder.weight": "tokens.weight"},
        fixed={"rope_scaling": ()},
    ),
)
