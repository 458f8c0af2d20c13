"""Llama (2302.13971) and its relatives: decoders with rotary positions and shared key/value heads.

- Mistral (2310.06825), Qwen2 (2407.10671) and Qwen3 (2505.09388) differ in biases, windows and
  query/key norms.
- SmolLM3 (2025) has layers without positions, OLMo 2 (2501.00656) norms after its sub-layers.
- Phi-3 (2404.14219) fuses its matrices.
- StarCoder 2 (2402.19173) has layer norms, biases and an ungated feed-forward layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from idiolect.errors import ConfigError
from idiolect.models.families.config_fields import layer_windows, rotary
from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]

_RULES = (
    Rule("embed_tokens.weight", "tokens.weight"),
    Rule("layers.{n}.self_attn.q_proj.*", "decoder.layers.{n}.attention.query.*"),
    Rule("layers.{n}.self_attn.k_proj.*", "decoder.layers.{n}.attention.key.*"),
    Rule("layers.{n}.self_attn.v_proj.*", "decoder.layers.{n}.attention.value.*"),
    Rule("layers.{n}.self_attn.o_proj.*", "decoder.layers.{n}.attention.output.*"),
    Rule("layers.{n}.self_attn.q_norm.weight", "decoder.layers.{n}.attention.query_norm.weight"),
    Rule("layers.{n}.self_attn.k_norm.weight", "decoder.layers.{n}.attention.key_norm.weight"),
    Rule("layers.{n}.mlp.gate_proj.*", "decoder.layers.{n}.feed_forward.gate.*"),
    Rule("layers.{n}.mlp.up_proj.*", "decoder.layers.{n}.feed_forward.up.*"),
    Rule("layers.{n}.mlp.down_proj.*", "decoder.layers.{n}.feed_forward.down.*"),
    Rule("layers.{n}.input_layernorm.weight", "decoder.layers.{n}.attention_norm.weight"),
    Rule(
        "layers.{n}.post_attention_layernorm.weight", "decoder.layers.{n}.feed_forward_norm.weight"
    ),
    Rule("norm.weight", "decoder.final_norm.weight"),
)


def _decoder(
    fields: Fields, *, theta: float = 10_000.0, part: float | None = None
) -> dict[str, Any]:
    """Return what Llama and its relatives share; see `rotary` for the defaults of positions."""
    heads = fields.get("num_attention_heads", 32)
    return {
        "hidden_size": fields.get("hidden_size", 4096),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get("num_key_value_heads", heads),
        "head_dim": fields.get_int("head_dim"),
        "intermediate_size": fields.get("intermediate_size", 11008),
        "num_decoder_layers": fields.get("num_hidden_layers", 32),
        "norm": "rms",
        "norm_eps": fields.get("rms_norm_eps", 1e-6),
        "activation": activation(fields.get("hidden_act", "silu")),
        "gated": True,
        "query_bias": False,
        "output_bias": False,
        "feed_forward_bias": False,
        "position": "rotary",
        "max_position_embeddings": fields.get("max_position_embeddings", 2048),
        "attention_dropout": fields.get("attention_dropout", 0.0),
        "tie_word_embeddings": fields.get("tie_word_embeddings", False),
    } | rotary(fields, theta=theta, part=part)


def _llama(fields: Fields) -> dict[str, Any]:
    bias = fields.get("attention_bias", False)
    return _decoder(fields) | {
        "query_bias": bias,
        "output_bias": bias,
        "feed_forward_bias": fields.get("mlp_bias", False),
    }


def _mistral(fields: Fields) -> dict[str, Any]:
    return (
        _decoder(fields)
        | _same_window(fields, 4096)
        | {
            "num_key_value_heads": fields.get_nullable("num_key_value_heads", 8),
            "intermediate_size": fields.get("intermediate_size", 14336),
        }
    )


def _same_window(fields: Fields, default: int) -> dict[str, Any]:
    """One window for all layers; 0 for none."""
    window = fields.get_nullable("sliding_window", default)
    return {"windows": (window,) if window else ()}


def _windows(fields: Fields) -> dict[str, Any]:
    """Qwen's windows: full attention first, then windows, unless `layer_types` lists the layers."""
    layers = fields.get("num_hidden_layers", 32)
    enabled = fields.get("use_sliding_window", False)
    window = fields.get_nullable("sliding_window", 4096) if enabled else None
    full = fields.get("max_window_layers", 28)
    return layer_windows(fields, window, [i >= full for i in range(layers)])


def _qwen2(fields: Fields) -> dict[str, Any]:
    return _decoder(fields) | _windows(fields) | {"query_bias": True}


def _qwen3(fields: Fields) -> dict[str, Any]:
    bias = fields.get("attention_bias", False)
    return (
        _decoder(fields)
        | _windows(fields)
        | {
            "head_dim": fields.get("head_dim", 128),
            "qk_norm": "per_head",
            "query_bias": bias,
            "output_bias": bias,
        }
    )


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
        _decoder(fields, theta=2_000_000.0)
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
    return _decoder(fields) | {
        "norm_eps": fields.get("rms_norm_eps", 1e-5),
        "norm_placement": "after",
        "qk_norm": "all_heads",
        "query_bias": bias,
        "output_bias": bias,
    }


def _phi3(fields: Fields) -> dict[str, Any]:
    values = _decoder(fields, part=1.0)
    if "rope_scaling" in values:
        raise ConfigError(
            f"rotary scaling {values['rope_scaling'].kind!r} is not supported for Phi-3",
            hint="use a model without it, such as Phi-3-mini-4k or Phi-4",
        )
    return (
        values
        | _same_window(fields, 0)
        | {
            "norm_eps": fields.get("rms_norm_eps", 1e-5),
            "dropout": fields.get("resid_pdrop", 0.0),
        }
    )


def _starcoder2(fields: Fields) -> dict[str, Any]:
    bias = fields.get("use_bias", True)
    return (
        _decoder(fields)
        | _same_window(fields, 0)
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
    """Return the rule of a tensor of each layer; several of ours are fused in it."""
    names = tuple(f"decoder.layers.{{n}}.{name}" for name in ours)
    return Rule(f"layers.{{n}}.{theirs}", names if len(names) > 1 else names[0])


def _replaced(*rules: Rule) -> tuple[Rule, ...]:
    """Return Llama's rules, with others for the tensors that these rules are about."""
    ours = {
        name
        for rule in rules
        for name in ([rule.ours] if isinstance(rule.ours, str) else rule.ours)
    }
    return (*(rule for rule in _RULES if rule.ours not in ours), *rules)


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

_SCORE = Rule("score.*", "heads.token.output.*", bare=True)
_CLASSES = {
    "ForCausalLM": Architecture(
        tasks=("language",),
        prefix="model.",
        rules=(Rule("lm_head.weight", "heads.language.weight", bare=True),),
    ),
    "Model": Architecture(),
    "ForSequenceClassification": Architecture(
        tasks=("sequence",),
        prefix="model.",
        rules=(Rule("score.weight", "heads.sequence.output.weight", bare=True),),
        config={"pool": "last", "label_bias": False},
    ),
    "ForTokenClassification": Architecture(tasks=("token",), prefix="model.", rules=(_SCORE,)),
}


def _family(
    model_type: str,
    name: str,
    paper: str,
    *,
    title: str | None = None,
    rules: tuple[Rule, ...] = _RULES,
    classes: Iterable[str] = _CLASSES,
    question_prefix: str | None = None,
    **data: Any,
) -> Family:
    architectures = {f"{name}{one}": _CLASSES[one] for one in classes}
    if question_prefix is not None:
        architectures[f"{name}ForQuestionAnswering"] = Architecture(
            tasks=("span",),
            prefix=question_prefix,
            rules=(Rule("qa_outputs.*", "heads.span.output.*", bare=True),),
        )
    return Family(
        model_type=model_type,
        title=title or name,
        paper=paper,
        rules=rules,
        architectures=architectures,
        aliases={"lm_head.weight": "tokens.weight"},
        ignored=(r"(.+\.)?rotary_emb\.inv_freq",),
        **data,
    )


FAMILIES = (
    _family("llama", "Llama", "arXiv 2302.13971", question_prefix="transformer.", configure=_llama),
    _family("mistral", "Mistral", "arXiv 2310.06825", question_prefix="model.", configure=_mistral),
    _family("qwen2", "Qwen2", "arXiv 2407.10671", question_prefix="transformer.", configure=_qwen2),
    _family("qwen3", "Qwen3", "arXiv 2505.09388", question_prefix="transformer.", configure=_qwen3),
    _family(
        "smollm3",
        "SmolLM3",
        "Hugging Face 2025",
        question_prefix="transformer.",
        configure=_smollm3,
    ),
    _family(
        "olmo2",
        "Olmo2",
        "arXiv 2501.00656",
        title="OLMo 2",
        rules=_AFTER,
        classes=("ForCausalLM", "Model", "ForSequenceClassification"),
        configure=_olmo2,
    ),
    _family("phi3", "Phi3", "arXiv 2404.14219", title="Phi-3", rules=_FUSED, configure=_phi3),
    _family(
        "starcoder2",
        "Starcoder2",
        "arXiv 2402.19173",
        title="StarCoder 2",
        rules=_UNGATED,
        configure=_starcoder2,
    ),
)
