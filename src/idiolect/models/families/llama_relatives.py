"""Relatives of Llama that differ from it in more than biases and windows.

- SmolLM3 (2025) has layers without position encoding.
- OLMo 2 (2501.00656) has norms after its sub-layers, and over the queries and keys of all heads.
- Phi-3 (2404.14219) fuses its matrices.
- StarCoder 2 (2402.19173) has layer norms, biases and an ungated feed-forward layer.
"""

from __future__ import annotations

from typing import Any

from idiolect.errors import ConfigError
from idiolect.models.families.config_fields import layer_windows
from idiolect.models.families.llama import LLAMA_RULES, llama_decoder, llama_family, same_window
from idiolect.models.family import Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]


def _smollm3(fields: Fields) -> dict[str, Any]:
    layers = fields.get("num_hidden_layers", 36)
    every = max(fields.get("no_rope_layer_interval", 4), 1)
    # Despite its name, the list has a 1 for each layer with rotary positions.
    turned = fields.get("no_rope_layers", [int((n + 1) % every != 0) for n in range(layers)])
    if len(turned) < layers:
        raise ConfigError(
            f"no_rope_layers names {len(turned)} of {layers} layers", hint="name each layer"
        )
    window = fields.get_nullable("sliding_window", 0) or None
    if not fields.get("use_sliding_window", False):
        window = None
    bias = fields.get("attention_bias", False)
    return (
        llama_decoder(fields, theta=2_000_000.0)
        | layer_windows(fields, window, [window is not None and not n for n in turned[:layers]])
        | {
            "hidden_size": fields.get("hidden_size", 2048),
            "num_attention_heads": fields.get("num_attention_heads", 16),
            "num_key_value_heads": fields.get_nullable("num_key_value_heads", 4),
            "num_decoder_layers": layers,
            "query_bias": bias,
            "output_bias": bias,
            "feed_forward_bias": fields.get("mlp_bias", False),
            "rotary_layers": tuple(map(bool, turned[:layers])),
            "tie_word_embeddings": fields.get("tie_word_embeddings", True),
        }
    )


def _olmo2(fields: Fields) -> dict[str, Any]:
    bias = fields.get("attention_bias", False)
    return llama_decoder(fields) | {
        "norm_eps": fields.get("rms_norm_eps", 1e-5),
        "norm_placement": "after",
        "qk_norm": "all_heads",
        "query_bias": bias,
        "output_bias": bias,
    }


def _phi3(fields: Fields) -> dict[str, Any]:
    values = llama_decoder(fields, part=1.0)
    if "rope_scaling" in values:
        raise ConfigError(
            f"rotary scaling {values['rope_scaling'].kind!r} is not supported for Phi-3",
            hint="use a model without it, such as Phi-3-mini-4k or Phi-4",
        )
    return (
        values
        | same_window(fields, 0)
        | {
            "norm_eps": fields.get("rms_norm_eps", 1e-5),
            "dropout": fields.get("resid_pdrop", 0.0),
        }
    )


def _starcoder2(fields: Fields) -> dict[str, Any]:
    bias = fields.get("use_bias", True)
    return (
        llama_decoder(fields)
        | same_window(fields, 0)
        | {
            "hidden_size": fields.get("hidden_size", 3072),
            "num_attention_heads": fields.get("num_attention_heads", 24),
            "num_key_value_heads": fields.get("num_key_value_heads", 2),
            "norm": "layer",
            "norm_eps": fields.get("norm_epsilon", 1e-5),
            "activation": activation(fields.get("hidden_act", "gelu_pytorch_tanh")),
            "gated": False,
            "query_bias": bias,
            "output_bias": bias,
            "feed_forward_bias": bias,
            "dropout": fields.get("residual_dropout", 0.0),
            "tie_word_embeddings": fields.get("tie_word_embeddings", True),
        }
    )


def _layer(theirs: str, *ours: str) -> Rule:
    """Return the rule for a tensor in each layer; several of ours if it is fused."""
    names = tuple(f"decoder.layers.{{n}}.{name}" for name in ours)
    return Rule(f"layers.{{n}}.{theirs}", names if len(names) > 1 else names[0])


def _replaced(*rules: Rule) -> tuple[Rule, ...]:
    """Return Llama's rules, with these rules in place of those for the same tensors."""
    ours = {
        name
        for rule in rules
        for name in ([rule.ours] if isinstance(rule.ours, str) else rule.ours)
    }
    return (*(rule for rule in LLAMA_RULES if rule.ours not in ours), *rules)


_AFTER = _replaced(
    _layer("post_attention_layernorm.weight", "attention_norm.weight"),
    _layer("post_feedforward_layernorm.weight", "feed_forward_norm.weight"),
)
_FUSED = _replaced(
    _layer("self_attn.qkv_proj.*", "attention.query.*", "attention.key.*", "attention.value.*"),
    _layer("mlp.gate_up_proj.*", "feed_forward.gate.*", "feed_forward.up.*"),
)
_UNGATED = (
    *_replaced(
        _layer("mlp.c_fc.*", "feed_forward.up.*"),
        _layer("mlp.c_proj.*", "feed_forward.down.*"),
    ),
    _layer("input_layernorm.bias", "attention_norm.bias"),
    _layer("post_attention_layernorm.bias", "feed_forward_norm.bias"),
    Rule("norm.bias", "decoder.final_norm.bias"),
)


_QUESTIONS, _TOKENS = "ForQuestionAnswering", "ForTokenClassification"

FAMILIES = (
    llama_family("smollm3", "SmolLM3", "Hugging Face 2025", configure=_smollm3),
    llama_family(
        "olmo2",
        "Olmo2",
        "arXiv 2501.00656",
        title="OLMo 2",
        rules=_AFTER,
        without=(_TOKENS, _QUESTIONS),
        configure=_olmo2,
    ),
    llama_family(
        "phi3",
        "Phi3",
        "arXiv 2404.14219",
        title="Phi-3",
        rules=_FUSED,
        without=(_QUESTIONS,),
        configure=_phi3,
    ),
    llama_family(
        "starcoder2",
        "Starcoder2",
        "arXiv 2402.19173",
        title="StarCoder 2",
        rules=_UNGATED,
        without=(_QUESTIONS,),
        configure=_starcoder2,
    ),
)
