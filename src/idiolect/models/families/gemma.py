"""Gemma 2 (2408.00118) and Gemma 3 (2503.19786): decoders with sliding windows, and norms before
and after each sub-layer.

EmbeddingGemma (2509.20354) is a Gemma 3 whose tokens attend to the whole text: an encoder here.
"""

from __future__ import annotations

from typing import Any

from idiolect.models.families.config_fields import layer_windows, layered_rotary, rotary
from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]


def _rules(side: str) -> tuple[Rule, ...]:
    layer = f"{side}.layers.{{n}}"
    return (
        Rule("layers.{n}.self_attn.q_proj.*", f"{layer}.attention.query.*"),
        Rule("layers.{n}.self_attn.k_proj.*", f"{layer}.attention.key.*"),
        Rule("layers.{n}.self_attn.v_proj.*", f"{layer}.attention.value.*"),
        Rule("layers.{n}.self_attn.o_proj.*", f"{layer}.attention.output.*"),
        Rule("layers.{n}.self_attn.q_norm.weight", f"{layer}.attention.query_norm.weight"),
        Rule("layers.{n}.self_attn.k_norm.weight", f"{layer}.attention.key_norm.weight"),
        Rule("layers.{n}.mlp.gate_proj.weight", f"{layer}.feed_forward.gate.weight"),
        Rule("layers.{n}.mlp.up_proj.weight", f"{layer}.feed_forward.up.weight"),
        Rule("layers.{n}.mlp.down_proj.weight", f"{layer}.feed_forward.down.weight"),
        Rule("layers.{n}.input_layernorm.weight", f"{layer}.attention_norm.weight"),
        Rule("layers.{n}.post_attention_layernorm.weight", f"{layer}.attention_output_norm.weight"),
        Rule("layers.{n}.pre_feedforward_layernorm.weight", f"{layer}.feed_forward_norm.weight"),
        Rule(
            "layers.{n}.post_feedforward_layernorm.weight",
            f"{layer}.feed_forward_output_norm.weight",
        ),
        Rule("norm.weight", f"{side}.final_norm.weight"),
    )


def _gemma(fields: Fields) -> dict[str, Any]:
    width, bias = fields.get("hidden_size", 2304), fields.get("attention_bias", False)
    return {
        "hidden_size": width,
        "num_attention_heads": fields.get("num_attention_heads", 8),
        "num_key_value_heads": fields.get("num_key_value_heads", 4),
        "head_dim": fields.get("head_dim", 256),
        "intermediate_size": fields.get("intermediate_size", 9216),
        "num_decoder_layers": fields.get("num_hidden_layers", 26),
        "norm": "rms",
        "norm_eps": fields.get("rms_norm_eps", 1e-6),
        "norm_offset": 1.0,
        "norm_placement": "before_and_after",
        "activation": activation(fields.get("hidden_activation", "gelu_pytorch_tanh")),
        "gated": True,
        "query_bias": bias,
        "output_bias": bias,
        "feed_forward_bias": False,
        "position": "rotary",
        "score_scale": max(fields.get("query_pre_attn_scalar", 256), 1e-9) ** -0.5,
        "embedding_scale": max(width, 1) ** 0.5,
        "attention_dropout": fields.get("attention_dropout", 0.0),
        "pad_token_id": fields.get("pad_token_id", 0),
        "eos_token_id": fields.get_int("eos_token_id"),
    }


def _gemma2(fields: Fields) -> dict[str, Any]:
    values = _gemma(fields)
    windowed = [n % 2 == 0 for n in range(values["num_decoder_layers"])]
    return (
        values
        | {
            "max_position_embeddings": fields.get("max_position_embeddings", 8192),
            "score_softcap": fields.get_nullable("attn_logit_softcapping", 50.0),
            "logit_softcap": fields.get_nullable("final_logit_softcapping", 30.0),
        }
        | rotary(fields)
        | layer_windows(fields, fields.get("sliding_window", 4096), windowed)
    )


def _gemma3(fields: Fields) -> dict[str, Any]:
    values = _gemma(fields)
    layers = values["num_decoder_layers"]
    every = max(fields.get("sliding_window_pattern", 6), 1)
    window = fields.get("sliding_window", 4096)
    if fields.get("use_bidirectional_attention", False):
        values |= {"num_encoder_layers": layers, "num_decoder_layers": 0}
        # The published window covers both directions: half to the left, half to the right.
        window = window // 2 + 1
    return (
        values
        | {
            "qk_norm": "per_head",
            "max_position_embeddings": fields.get("max_position_embeddings", 131_072),
            "logit_softcap": fields.get("final_logit_softcapping", 0.0) or None,
        }
        | layered_rotary(
            fields, theta=("rope_theta", 1_000_000.0), local_theta=("rope_local_base_freq", 1e4)
        )
        | layer_windows(fields, window, [(n + 1) % every != 0 for n in range(layers)])
    )


_TOKENS = Rule("embed_tokens.weight", "tokens.weight")
_LANGUAGE = Architecture(
    tasks=("language",),
    prefix="model.",
    rules=(Rule("lm_head.weight", "heads.language.weight", bare=True),),
)
_SEQUENCE = Architecture(
    tasks=("sequence",),
    prefix="model.",
    rules=(Rule("score.weight", "heads.sequence.output.weight", bare=True),),
    config={"pool": "last", "label_bias": False},
)
_ALIASES = {"lm_head.weight": "tokens.weight"}

FAMILIES = (
    Family(
        model_type="gemma2",
        title="Gemma 2",
        paper="arXiv 2408.00118",
        configure=_gemma2,
        rules=(_TOKENS, *_rules("decoder")),
        architectures={
            "Gemma2ForCausalLM": _LANGUAGE,
            "Gemma2Model": Architecture(),
            "Gemma2ForSequenceClassification": _SEQUENCE,
            "Gemma2ForTokenClassification": Architecture(
                tasks=("token",),
                prefix="model.",
                rules=(Rule("score.*", "heads.token.output.*", bare=True),),
            ),
        },
        aliases=_ALIASES,
        fixed={"use_bidirectional_attention": (False,)},
    ),
    Family(
        model_type="gemma3_text",
        title="Gemma 3 (EmbeddingGemma: bidirectional)",
        paper="arXiv 2503.19786",
        configure=_gemma3,
        rules=(_TOKENS, *_rules("decoder"), *_rules("encoder")),
        architectures={
            "Gemma3ForCausalLM": _LANGUAGE,
            "Gemma3TextModel": Architecture(),
            "Gemma3TextForSequenceClassification": _SEQUENCE,
        },
        aliases=_ALIASES,
        fixed={"attn_logit_softcapping": ()},
    ),
)
