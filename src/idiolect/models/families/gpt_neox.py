"""GPT-NeoX (2204.06745), the architecture of Pythia (2304.01373).

Attention and feed-forward layer run in parallel; rotary positions rotate a part of each head.
"""

from __future__ import annotations

from typing import Any

from idiolect.models.families.config_fields import rotary
from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]


def _configure(fields: Fields) -> dict[str, Any]:
    bias = fields.get("attention_bias", True)
    return {
        "hidden_size": fields.get("hidden_size", 6144),
        "num_attention_heads": fields.get("num_attention_heads", 64),
        "intermediate_size": fields.get("intermediate_size", 24576),
        "num_decoder_layers": fields.get("num_hidden_layers", 44),
        "norm_eps": fields.get("layer_norm_eps", 1e-5),
        "parallel_residual": fields.get("use_parallel_residual", True),
        "activation": activation(fields.get("hidden_act", "gelu")),
        "query_bias": bias,
        "output_bias": bias,
        "position": "rotary",
        "max_position_embeddings": fields.get("max_position_embeddings", 2048),
        "dropout": fields.get("hidden_dropout", 0.0),
        "attention_dropout": fields.get("attention_dropout", 0.0),
        "tie_word_embeddings": fields.get("tie_word_embeddings", False),
        **rotary(
            fields,
            theta=fields.get("rotary_emb_base", 10_000.0),
            part=fields.get("rotary_pct", 0.25),
        ),
    }


_LAYER = "decoder.layers.{n}"
_RULES = (
    Rule("embed_in.weight", "tokens.weight"),
    Rule(
        "layers.{n}.attention.query_key_value.*",
        (
            f"{_LAYER}.attention.query.*",
            f"{_LAYER}.attention.key.*",
            f"{_LAYER}.attention.value.*",
        ),
        per_head=True,
    ),
    Rule("layers.{n}.attention.dense.*", f"{_LAYER}.attention.output.*"),
    Rule("layers.{n}.input_layernorm.*", f"{_LAYER}.attention_norm.*"),
    Rule("layers.{n}.mlp.dense_h_to_4h.*", f"{_LAYER}.feed_forward.up.*"),
    Rule("layers.{n}.mlp.dense_4h_to_h.*", f"{_LAYER}.feed_forward.down.*"),
    Rule("layers.{n}.post_attention_layernorm.*", f"{_LAYER}.feed_forward_norm.*"),
    Rule("final_layer_norm.*", "decoder.final_norm.*"),
)

FAMILIES = (
    Family(
        model_type="gpt_neox",
        title="GPT-NeoX (Pythia)",
        paper="arXiv 2204.06745",
        configure=_configure,
        rules=_RULES,
        architectures={
            "GPTNeoXForCausalLM": Architecture(
                tasks=("language",),
                prefix="gpt_neox.",
                rules=(Rule("embed_out.weight", "heads.language.weight", bare=True),),
            ),
            "GPTNeoXModel": Architecture(),
            "GPTNeoXForSequenceClassification": Architecture(
                tasks=("sequence",),
                prefix="gpt_neox.",
                rules=(Rule("score.weight", "heads.sequence.output.weight", bare=True),),
                config={"pool": "last", "label_bias": False},
            ),
            "GPTNeoXForTokenClassification": Architecture(
                tasks=("token",),
                prefix="gpt_neox.",
                rules=(Rule("classifier.*", "heads.token.output.*", bare=True),),
            ),
            "GPTNeoXForQuestionAnswering": Architecture(
                tasks=("span",),
                prefix="gpt_neox.",
                rules=(Rule("qa_outputs.*", "heads.span.output.*", bare=True),),
            ),
        },
        aliases={"embed_out.weight": "tokens.weight"},
        ignored=(
            r"(.+\.)?attention\.(bias|masked_bias)",
            r"(.+\.)?rotary_emb\.inv_freq",
        ),
    ),
)
