"""XLM (1901.07291): a post-norm encoder with an embedding for each token's language."""

from __future__ import annotations

from typing import Any

from idiolect.models.family import Architecture, Family, Fields
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]


def _configure(fields: Fields) -> dict[str, Any]:
    languages = fields.get("n_langs", 1)
    return {
        "hidden_size": fields.get("emb_dim", 2048),
        "num_attention_heads": fields.get("n_heads", 16),
        "intermediate_size": 4 * fields.get("emb_dim", 2048),
        "num_encoder_layers": fields.get("n_layers", 12),
        "norm_eps": fields.get("layer_norm_eps", 1e-12),
        "norm_placement": "after_sum",
        "embedding_norm": True,
        "final_norm": False,
        "activation": "gelu" if fields.get("gelu_activation", True) else "relu",
        "num_languages": languages if languages > 1 and fields.get("use_lang_emb", True) else 0,
        "dropout": fields.get("dropout", 0.1),
        "attention_dropout": fields.get("attention_dropout", 0.1),
        "max_position_embeddings": fields.get("max_position_embeddings", 512),
        "pad_token_id": fields.get("pad_token_id", 2),
        "head_bias": True,
    }


_RULES = (
    Rule("embeddings.weight", "tokens.weight"),
    # Sinusoidal positions are stored like learned ones, so both are loaded as a table.
    Rule("position_embeddings.weight", "encoder.table.weight"),
    Rule("lang_embeddings.weight", "languages.weight"),
    Rule("layer_norm_emb.*", "encoder.embedding_norm.*"),
    Rule("attentions.{n}.q_lin.*", "encoder.layers.{n}.attention.query.*"),
    Rule("attentions.{n}.k_lin.*", "encoder.layers.{n}.attention.key.*"),
    Rule("attentions.{n}.v_lin.*", "encoder.layers.{n}.attention.value.*"),
    Rule("attentions.{n}.out_lin.*", "encoder.layers.{n}.attention.output.*"),
    Rule("layer_norm1.{n}.*", "encoder.layers.{n}.attention_norm.*"),
    Rule("ffns.{n}.lin1.*", "encoder.layers.{n}.feed_forward.up.*"),
    Rule("ffns.{n}.lin2.*", "encoder.layers.{n}.feed_forward.down.*"),
    Rule("layer_norm2.{n}.*", "encoder.layers.{n}.feed_forward_norm.*"),
)
_HEAD = (
    Rule("pred_layer.proj.bias", "heads.language.bias", bare=True),
    Rule("pred_layer.proj.weight", "heads.language.weight", bare=True),
)

FAMILIES = (
    Family(
        model_type="xlm",
        title="XLM",
        paper="arXiv 1901.07291",
        configure=_configure,
        rules=_RULES,
        architectures={
            "XLMWithLMHeadModel": Architecture(
                tasks=("language",), prefix="transformer.", rules=_HEAD
            ),
            "XLMModel": Architecture(),
            "XLMForSequenceClassification": Architecture(
                tasks=("sequence",),
                prefix="transformer.",
                rules=(Rule("sequence_summary.summary.*", "heads.sequence.output.*", bare=True),),
                config={"pool": "first"},
                fixed={
                    "summary_type": ("first",),
                    "summary_use_proj": (True,),
                    "summary_activation": (),
                    "summary_proj_to_labels": (True,),
                },
            ),
            "XLMForTokenClassification": Architecture(
                tasks=("token",),
                prefix="transformer.",
                rules=(Rule("classifier.*", "heads.token.output.*", bare=True),),
            ),
            "XLMForQuestionAnsweringSimple": Architecture(
                tasks=("span",),
                prefix="transformer.",
                rules=(Rule("qa_outputs.*", "heads.span.output.*", bare=True),),
            ),
        },
        synonyms={
            "n_words": "vocab_size",
            "hidden_size": "emb_dim",
            "num_attention_heads": "n_heads",
            "num_hidden_layers": "n_layers",
            "pad_index": "pad_token_id",
        },
        aliases={"pred_layer.proj.weight": "tokens.weight"},
        ignored=(r"(.+\.)?position_ids",),
        fixed={"causal": (False,), "asm": (False,), "is_encoder": (True,)},
    ),
)
