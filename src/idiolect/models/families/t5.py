"""T5 and T5 1.1 (1910.10683), mT5 (2010.11934): encoder-decoders with relative position buckets."""

from __future__ import annotations

from typing import Any

from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]


def _side(side: str, last: int) -> tuple[Rule, ...]:
    """Return the rules of encoder or decoder; `last` is the index of its feed-forward sub-layer."""
    theirs, ours = f"{side}.block.{{n}}.layer", f"{side}.layers.{{n}}"
    inner = f"{theirs}.{last}.DenseReluDense"
    return (
        Rule(
            f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            f"{side}.score_bias.table.weight",
        ),
        Rule(f"{theirs}.0.SelfAttention.q.weight", f"{ours}.attention.query.weight"),
        Rule(f"{theirs}.0.SelfAttention.k.weight", f"{ours}.attention.key.weight"),
        Rule(f"{theirs}.0.SelfAttention.v.weight", f"{ours}.attention.value.weight"),
        Rule(f"{theirs}.0.SelfAttention.o.weight", f"{ours}.attention.output.weight"),
        Rule(f"{theirs}.0.layer_norm.weight", f"{ours}.attention_norm.weight"),
        Rule(f"{inner}.wi.weight", f"{ours}.feed_forward.up.weight", gated=False),
        Rule(f"{inner}.wi_0.weight", f"{ours}.feed_forward.gate.weight", gated=True),
        Rule(f"{inner}.wi_1.weight", f"{ours}.feed_forward.up.weight", gated=True),
        Rule(f"{inner}.wo.weight", f"{ours}.feed_forward.down.weight"),
        Rule(f"{theirs}.{last}.layer_norm.weight", f"{ours}.feed_forward_norm.weight"),
        Rule(f"{side}.final_layer_norm.weight", f"{side}.final_norm.weight"),
    )


_CROSS = "decoder.block.{n}.layer.1"
_RULES = (
    Rule("shared.weight", "tokens.weight"),
    *_side("encoder", 1),
    *_side("decoder", 2),
    Rule(f"{_CROSS}.EncDecAttention.q.weight", "decoder.layers.{n}.cross.query.weight"),
    Rule(f"{_CROSS}.EncDecAttention.k.weight", "decoder.layers.{n}.cross.key.weight"),
    Rule(f"{_CROSS}.EncDecAttention.v.weight", "decoder.layers.{n}.cross.value.weight"),
    Rule(f"{_CROSS}.EncDecAttention.o.weight", "decoder.layers.{n}.cross.output.weight"),
    Rule(f"{_CROSS}.layer_norm.weight", "decoder.layers.{n}.cross_norm.weight"),
)


def _encoder_decoder(fields: Fields) -> dict[str, Any]:
    gate, _, name = fields.get("feed_forward_proj", "relu").rpartition("-")
    layers = fields.get("num_layers", 6)
    dropout = fields.get("dropout_rate", 0.1)
    return {
        "hidden_size": fields.get("d_model", 512),
        "num_attention_heads": fields.get("num_heads", 8),
        "head_dim": fields.get("d_kv", 64),
        "intermediate_size": fields.get("d_ff", 2048),
        "num_encoder_layers": layers,
        "num_decoder_layers": fields.get("num_decoder_layers", layers),
        "norm": "rms",
        "norm_eps": fields.get("layer_norm_epsilon", 1e-6),
        # "gated-gelu" is the tanh approximation, despite the name of the exact function.
        "activation": activation("gelu_new" if (gate, name) == ("gated", "gelu") else name),
        "gated": gate == "gated",
        "query_bias": False,
        "output_bias": False,
        "feed_forward_bias": False,
        "position": "buckets",
        "relative_buckets": fields.get("relative_attention_num_buckets", 32),
        "relative_distance": fields.get("relative_attention_max_distance", 128),
        "score_scale": 1.0,
        "dropout": dropout,
        "attention_dropout": dropout,
        "activation_dropout": dropout,
        "pad_token_id": fields.get("pad_token_id", 0),
        # T5's decoder input starts with the padding token.
        "decoder_start_token_id": fields.get(
            "decoder_start_token_id", fields.get("pad_token_id", 0)
        ),
        "eos_token_id": fields.get("eos_token_id", 1),
    }


def _t5(fields: Fields) -> dict[str, Any]:
    values = _encoder_decoder(fields)
    # T5 1.1 dropped the scaling together with the tying; its files mention only the latter.
    scaled = fields.get("tie_word_embeddings", True) and fields.get("scale_decoder_outputs", True)
    return values | {"output_scale": max(values["hidden_size"], 1) ** -0.5 if scaled else 1.0}


def _mt5(fields: Fields) -> dict[str, Any]:
    shape = {
        "num_layers": 8,
        "num_heads": 6,
        "d_ff": 1024,
        "feed_forward_proj": "gated-gelu",
    }
    return _encoder_decoder(Fields(fields.values, defaults=shape))


def _family(model_type: str, name: str, title: str, paper: str, **data: Any) -> Family:
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
                tasks=("language",),
                rules=(Rule("lm_head.weight", "heads.language.weight", bare=True),),
            ),
            f"{name}Model": Architecture(),
            f"{name}EncoderModel": Architecture(config={"num_decoder_layers": 0}),
            f"{name}ForSequenceClassification": Architecture(
                tasks=("sequence",),
                prefix="transformer.",
                rules=classify,
                config={"pool": "end", "pool_dense": True},
            ),
            f"{name}ForTokenClassification": Architecture(
                tasks=("token",),
                prefix="transformer.",
                rules=(Rule("classifier.*", "heads.token.output.*", bare=True),),
                config={"num_decoder_layers": 0},
            ),
            f"{name}ForQuestionAnswering": Architecture(
                tasks=("span",), rules=(Rule("qa_outputs.*", "heads.span.output.*", bare=True),)
            ),
        },
        synonyms={
            "hidden_size": "d_model",
            "num_attention_heads": "num_heads",
            "num_hidden_layers": "num_layers",
            "head_dim": "d_kv",
        },
        aliases={
            "encoder.embed_tokens.weight": "tokens.weight",
            "decoder.embed_tokens.weight": "tokens.weight",
            "lm_head.weight": "tokens.weight",
        },
        # Some of the first T5 files contain a position table that cross-attention never used.
        ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
        head_may_be_absent=True,
        fixed={"is_decoder": (False,)},
        **data,
    )


FAMILIES = (
    _family(
        "t5",
        "T5",
        "T5, T5 1.1",
        "arXiv 1910.10683",
        configure=_t5,
    ),
    _family("mt5", "MT5", "mT5", "arXiv 2010.11934", configure=_mt5),
)
