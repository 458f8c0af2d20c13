"""Llama (2302.13971), Mistral (2310.06825), Qwen2 (2407.10671) and Qwen3 (2505.09388).

Pre-norm decoders with RMS norms, rotary positions, gated feed-forward layers and shared key/value
heads; they differ in biases, windows and query/key norms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from idiolect.models.families.config_fields import layer_windows, rotary
from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule
from idiolect.text.tokenizers.special_tokens import WHOLE_PIPELINE

__all__ = ["FAMILIES", "LLAMA_RULES", "llama_decoder", "llama_family", "same_window"]

LLAMA_RULES = (
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


def llama_decoder(
    fields: Fields, *, theta: float = 10_000.0, part: float | None = None
) -> dict[str, Any]:
    """Translate the fields that Llama and its relatives share; see `rotary` for the defaults."""
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
    return llama_decoder(fields) | {
        "query_bias": bias,
        "output_bias": bias,
        "feed_forward_bias": fields.get("mlp_bias", False),
    }


def _mistral(fields: Fields) -> dict[str, Any]:
    return (
        llama_decoder(fields)
        | same_window(fields, 4096)
        | {
            "num_key_value_heads": fields.get_nullable("num_key_value_heads", 8),
            "intermediate_size": fields.get("intermediate_size", 14336),
        }
    )


def same_window(fields: Fields, default: int) -> dict[str, Any]:
    """Translate the attention window shared by all layers; 0 means full attention."""
    window = fields.get_nullable("sliding_window", default)
    return {"windows": (window,) if window else ()}


def _windows(fields: Fields) -> dict[str, Any]:
    """Translate Qwen's windows, which start after some full-attention layers by default."""
    layers = fields.get("num_hidden_layers", 32)
    enabled = fields.get("use_sliding_window", False)
    window = fields.get_nullable("sliding_window", 4096) if enabled else None
    full = fields.get("max_window_layers", 28)
    return layer_windows(fields, window, [i >= full for i in range(layers)])


def _qwen2(fields: Fields) -> dict[str, Any]:
    return llama_decoder(fields) | _windows(fields) | {"query_bias": True}


def _qwen3(fields: Fields) -> dict[str, Any]:
    bias = fields.get("attention_bias", False)
    return (
        llama_decoder(fields)
        | _windows(fields)
        | {
            "head_dim": fields.get("head_dim", 128),
            "qk_norm": "per_head",
            "query_bias": bias,
            "output_bias": bias,
        }
    )


def llama_family(
    model_type: str,
    name: str,
    paper: str,
    *,
    title: str | None = None,
    rules: tuple[Rule, ...] = LLAMA_RULES,
    question_prefix: str = "transformer.",
    without: tuple[str, ...] = (),
    **data: Any,
) -> Family:
    """Return a family with the same model classes as Llama.

    Args:
        model_type: Its `model_type`.
        name: The prefix of its classes.
        paper: Reference.
        title: Its display name; by default the prefix.
        rules: Names of the body's weights.
        question_prefix: Prefix of the body's weight names in the question-answering class.
        without: Suffixes of the Llama classes that the family lacks.
        data: Other arguments of `Family`.
    """
    score = Rule("score.*", "heads.token.output.*", bare=True)
    family = Family(
        model_type=model_type,
        title=title or name,
        paper=paper,
        rules=rules,
        architectures={
            f"{name}ForCausalLM": Architecture(
                tasks=("language",),
                prefix="model.",
                rules=(Rule("lm_head.weight", "heads.language.weight", bare=True),),
            ),
            f"{name}Model": Architecture(),
            f"{name}ForSequenceClassification": Architecture(
                tasks=("sequence",),
                prefix="model.",
                rules=(Rule("score.weight", "heads.sequence.output.weight", bare=True),),
                config={"pool": "last", "label_bias": False},
            ),
            f"{name}ForTokenClassification": Architecture(
                tasks=("token",), prefix="model.", rules=(score,)
            ),
            f"{name}ForQuestionAnswering": Architecture(
                tasks=("span",),
                prefix=question_prefix,
                rules=(Rule("qa_outputs.*", "heads.span.output.*", bare=True),),
            ),
        },
        aliases={"lm_head.weight": "tokens.weight"},
        ignored=(r"(.+\.)?rotary_emb\.inv_freq",),
        **data,
    )
    classes = {k: a for k, a in family.architectures.items() if not k.endswith(without)}
    return replace(family, architectures=classes)


FAMILIES = (
    llama_family(
        "llama",
        "Llama",
        "arXiv 2302.13971",
        configure=_llama,
    ),
    llama_family(
        "mistral",
        "Mistral",
        "arXiv 2310.06825",
        question_prefix="model.",
        configure=_mistral,
    ),
    llama_family(
        "qwen2",
        "Qwen2",
        "arXiv 2407.10671",
        configure=_qwen2,
        tokenizer_settings=WHOLE_PIPELINE,
    ),
    llama_family(
        "qwen3",
        "Qwen3",
        "arXiv 2505.09388",
        configure=_qwen3,
    ),
)
