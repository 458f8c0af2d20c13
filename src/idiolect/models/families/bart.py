"""BART (1910.13461) and mBART (2001.08210): encoder and decoder with learned positions."""

from __future__ import annotations

from typing import Any

from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]


def _attention(side: str, theirs: str, ours: str) -> tuple[Rule, ...]:
    theirs, ours = f"{side}.layers.{{n}}.{theirs}", f"{side}.layers.{{n}}.{ours}"
    return (
        Rule(f"{theirs}.q_proj.*", f"{ours}.query.*"),
        Rule(f"{theirs}.k_proj.*", f"{ours}.key.*"),
        Rule(f"{theirs}.v_proj.*", f"{ours}.value.*"),
        Rule(f"{theirs}.out_proj.*", f"{ours}.output.*"),
        Rule(f"{theirs}_layer_norm.*", f"{ours}_norm.*"),
    )


def _side(side: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{side}.embed_positions.weight", f"{side}.table.weight"),
        Rule(f"{side}.layernorm_embedding.*", f"{side}.embedding_norm.*"),
        *_attention(side, "self_attn", "attention"),
        Rule(f"{side}.layers.{{n}}.fc1.*", f"{side}.layers.{{n}}.feed_forward.up.*"),
        Rule(f"{side}.layers.{{n}}.fc2.*", f"{side}.layers.{{n}}.feed_forward.down.*"),
        Rule(f"{side}.layers.{{n}}.final_layer_norm.*", f"{side}.layers.{{n}}.feed_forward_norm.*"),
        Rule(f"{side}.layer_norm.*", f"{side}.final_norm.*"),
    )


_RULES = (
    Rule("shared.weight", "tokens.weight"),
    *_side("encoder"),
    *_side("decoder"),
    *_attention("decoder", "encoder_attn", "cross"),
)


def _bart(fields: Fields) -> dict[str, Any]:
    width = fields.get("d_model", 1024)
    return {
        "hidden_size": width,
        "num_attention_heads": fields.get_equal(
            "encoder_attention_heads", "decoder_attention_heads", 16
        ),
        "intermediate_size": fields.get_equal("encoder_ffn_dim", "decoder_ffn_dim", 4096),
        "num_encoder_layers": fields.get("encoder_layers", 12),
        "num_decoder_layers": fields.get("decoder_layers", 12),
        "norm_placement": "after_sum",
        "embedding_norm": True,
        "final_norm": False,
        "activation": activation(fields.get("activation_function", "gelu")),
        "max_position_embeddings": fields.get("max_position_embeddings", 1024),
        "position_offset": 2,
        "embedding_scale": width**0.5 if fields.get("scale_embedding", False) else 1.0,
        "dropout": fields.get("dropout", 0.1),
        "attention_dropout": fields.get("attention_dropout", 0.0),
        "activation_dropout": fields.get("activation_dropout", 0.0),
        "pad_token_id": fields.get("pad_token_id", 1),
        # BART's decoder input starts with the end token.
        "decoder_start_token_id": fields.get(
            "decoder_start_token_id", fields.get("eos_token_id", 2)
        ),
        "eos_token_id": fields.get("eos_token_id", 2),
    }


def _mbart(fields: Fields) -> dict[str, Any]:
    return _bart(fields) | {
        "norm_placement": "before",
        "final_norm": True,
        "decoder_start_token_id": fields.get_int("decoder_start_token_id"),
        "shift_last": True,
    }


def _family(model_type: str, name: str, title: str, paper: str, **data: Any) -> Family:
    head = (
        Rule("lm_head.weight", "heads.language.weight", bare=True),
        Rule("final_logits_bias", "heads.language.bias", bare=True, row=True),
    )
    classify = (
        Rule("classification_head.dense.*", "pooler.dense.*", bare=True),
        Rule("classification_head.out_proj.*", "heads.sequence.output.*", bare=True),
    )
    return Family(
        model_type=model_type,
        title=title,
        paper=paper,
        rules=_RULES,
        architectures={
            f"{name}ForConditionalGeneration": Architecture(
                tasks=("language",), prefix="model.", rules=head, config={"head_bias": True}
            ),
            f"{name}Model": Architecture(),
            f"{name}ForSequenceClassification": Architecture(
                tasks=("sequence",),
                prefix="model.",
                rules=classify,
                config={"pool": "end", "pool_dense": True},
            ),
            f"{name}ForQuestionAnswering": Architecture(
                tasks=("span",),
                prefix="model.",
                rules=(Rule("qa_outputs.*", "heads.span.output.*", bare=True),),
            ),
        },
        synonyms={
            "hidden_size": "d_model",
            "num_attention_heads": "encoder_attention_heads",
            "num_hidden_layers": "encoder_layers",
        },
        aliases={
            "encoder.embed_tokens.weight": "tokens.weight",
            "decoder.embed_tokens.weight": "tokens.weight",
            "lm_head.weight": "tokens.weight",
        },
        fixed={"is_decoder": (False,)},
        **data,
    )


FAMILIES = (
    _family("bart", "Bart", "BART", "arXiv 1910.13461", configure=_bart),
    _family("mbart", "MBart", "mBART", "arXiv 2001.08210", configure=_mbart),
)
