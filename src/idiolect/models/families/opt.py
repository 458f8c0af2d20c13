"""OPT (2205.01068): decoders like GPT-3, with ReLU and positions counted from row 2."""

from __future__ import annotations

from typing import Any

from idiolect.errors import ConfigError
from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]


def _configure(fields: Fields) -> dict[str, Any]:
    width, bias = fields.get("hidden_size", 768), fields.get("enable_bias", True)
    before = fields.get("do_layer_norm_before", True)
    if (rows := fields.get("word_embed_proj_dim", width)) != width:
        raise ConfigError(
            f"word_embed_proj_dim = {rows} is not supported",
            hint=f"only embedding rows of the hidden size, {width}, are (all models but 350m)",
        )
    return {
        "hidden_size": width,
        "num_attention_heads": fields.get("num_attention_heads", 12),
        "intermediate_size": fields.get("ffn_dim", 3072),
        "num_decoder_layers": fields.get("num_hidden_layers", 12),
        "norm_placement": "before" if before else "after_sum",
        "final_norm": before and not fields.get("_remove_final_layer_norm", False),
        "activation": activation(fields.get("activation_function", "relu")),
        "query_bias": bias,
        "output_bias": bias,
        "feed_forward_bias": bias,
        "position_offset": 2,
        "max_position_embeddings": fields.get("max_position_embeddings", 2048),
        "dropout": fields.get("dropout", 0.1),
        "attention_dropout": fields.get("attention_dropout", 0.0),
        "pad_token_id": fields.get("pad_token_id", 1),
    }


_THEIRS, _OURS = "decoder.layers.{n}", "decoder.layers.{n}"
FAMILIES = (
    Family(
        model_type="opt",
        title="OPT",
        paper="arXiv 2205.01068",
        configure=_configure,
        rules=(
            Rule("decoder.embed_tokens.weight", "tokens.weight"),
            Rule("decoder.embed_positions.weight", "decoder.table.weight"),
            Rule(f"{_THEIRS}.self_attn.q_proj.*", f"{_OURS}.attention.query.*"),
            Rule(f"{_THEIRS}.self_attn.k_proj.*", f"{_OURS}.attention.key.*"),
            Rule(f"{_THEIRS}.self_attn.v_proj.*", f"{_OURS}.attention.value.*"),
            Rule(f"{_THEIRS}.self_attn.out_proj.*", f"{_OURS}.attention.output.*"),
            Rule(f"{_THEIRS}.self_attn_layer_norm.*", f"{_OURS}.attention_norm.*"),
            Rule(f"{_THEIRS}.fc1.*", f"{_OURS}.feed_forward.up.*"),
            Rule(f"{_THEIRS}.fc2.*", f"{_OURS}.feed_forward.down.*"),
            Rule(f"{_THEIRS}.final_layer_norm.*", f"{_OURS}.feed_forward_norm.*"),
            Rule("decoder.final_layer_norm.*", "decoder.final_norm.*"),
        ),
        architectures={
            "OPTForCausalLM": Architecture(
                tasks=("language",),
                prefix="model.",
                rules=(Rule("lm_head.weight", "heads.language.weight", bare=True),),
            ),
            "OPTModel": Architecture(),
            "OPTForSequenceClassification": Architecture(
                tasks=("sequence",),
                prefix="model.",
                rules=(Rule("score.weight", "heads.sequence.output.weight", bare=True),),
                config={"pool": "last", "label_bias": False},
            ),
            "OPTForQuestionAnswering": Architecture(
                tasks=("span",),
                prefix="model.",
                rules=(Rule("qa_outputs.*", "heads.span.output.*", bare=True),),
            ),
        },
        aliases={"lm_head.weight": "tokens.weight"},
        fixed={"layer_norm_elementwise_affine": (True,)},
    ),
)
