"""GPT, GPT-2, GPT-3 and XGLM: decoders with biases and positions added to the embeddings.

GPT-3 has no published weights; its `config.json` is GPT-2's with `attention_windows`, one window
per layer, for its locally banded attention.

Radford et al. 2018, Improving Language Understanding by Generative Pre-Training; 2019, Language
Models are Unsupervised Multitask Learners; Brown et al. 2020 (2005.14165); Lin et al. 2021
(2112.10668).
"""

from __future__ import annotations

from typing import Any

from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]

_BLOCK = (
    Rule(
        "h.{n}.attn.c_attn.*",
        (
            "decoder.layers.{n}.attention.query.*",
            "decoder.layers.{n}.attention.key.*",
            "decoder.layers.{n}.attention.value.*",
        ),
        transpose=True,
    ),
    Rule("h.{n}.attn.c_proj.*", "decoder.layers.{n}.attention.output.*", transpose=True),
    Rule("h.{n}.ln_1.*", "decoder.layers.{n}.attention_norm.*"),
    Rule("h.{n}.mlp.c_fc.*", "decoder.layers.{n}.feed_forward.up.*", transpose=True),
    Rule("h.{n}.mlp.c_proj.*", "decoder.layers.{n}.feed_forward.down.*", transpose=True),
    Rule("h.{n}.ln_2.*", "decoder.layers.{n}.feed_forward_norm.*"),
)
_HEAD = Rule("lm_head.weight", "heads.language.weight", bare=True)
_SCORE = Rule("score.weight", "heads.sequence.output.weight", bare=True)
_SYNONYMS = {
    "max_position_embeddings": "n_positions",
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_LAST = {"pool": "last", "label_bias": False}
_IGNORED = (r"(.+\.)?h\.\d+\.attn\.(bias|masked_bias)", r"(.+\.)?position_ids")


def _decoder(fields: Fields) -> dict[str, Any]:
    width = fields.get("n_embd", 768)
    return {
        "hidden_size": width,
        "num_attention_heads": fields.get("n_head", 12),
        "intermediate_size": 4 * width,
        "num_decoder_layers": fields.get("n_layer", 12),
        "max_position_embeddings": fields.get("n_positions", 512),
        "norm_eps": fields.get("layer_norm_epsilon", 1e-5),
        "dropout": fields.get("resid_pdrop", 0.1),
        "attention_dropout": fields.get("attn_pdrop", 0.1),
    }


def _gpt(fields: Fields) -> dict[str, Any]:
    # GPT's "gelu" is the tanh approximation; the name later came to mean the exact function.
    name = fields.get("afn", "gelu")
    return _decoder(fields) | {
        "activation": activation("gelu_new" if name == "gelu" else name),
        "norm_placement": "after_sum",
        "final_norm": False,
    }


def _gpt2(fields: Fields) -> dict[str, Any]:
    values = _decoder(fields)
    return values | {
        "intermediate_size": fields.get("n_inner", values["intermediate_size"]),
        "max_position_embeddings": fields.get("n_positions", 1024),
        "activation": activation(fields.get("activation_function", "gelu_new")),
    }


def _gpt3(fields: Fields) -> dict[str, Any]:
    return _gpt2(fields) | {
        "windows": tuple(fields.get("attention_windows", [None])),
        "head_dim": fields.get_int("head_dim"),
    }


_GPT2_TABLE = (
    Rule("wte.weight", "tokens.weight"),
    Rule("wpe.weight", "decoder.table.weight"),
    *_BLOCK,
    Rule("ln_f.*", "decoder.final_norm.*"),
)
_GPT2_FIXED = {
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}

_GPT = Family(
    model_type="openai-gpt",
    title="GPT",
    paper="Radford et al. 2018",
    configure=_gpt,
    rules=(
        Rule("tokens_embed.weight", "tokens.weight"),
        Rule("positions_embed.weight", "decoder.table.weight"),
        *_BLOCK,
    ),
    architectures={
        "OpenAIGPTLMHeadModel": Architecture(
            tasks=("language",), prefix="transformer.", rules=(_HEAD,)
        ),
        "OpenAIGPTModel": Architecture(),
        "OpenAIGPTForSequenceClassification": Architecture(
            tasks=("sequence",), prefix="transformer.", rules=(_SCORE,), config=_LAST
        ),
    },
    synonyms=_SYNONYMS,
    aliases={"lm_head.weight": "tokens.weight"},
    ignored=_IGNORED,
)

_GPT2 = Family(
    model_type="gpt2",
    title="GPT-2",
    paper="Radford et al. 2019",
    configure=_gpt2,
    rules=_GPT2_TABLE,
    architectures={
        "GPT2LMHeadModel": Architecture(tasks=("language",), prefix="transformer.", rules=(_HEAD,)),
        "GPT2Model": Architecture(),
        "GPT2ForSequenceClassification": Architecture(
            tasks=("sequence",), prefix="transformer.", rules=(_SCORE,), config=_LAST
        ),
        "GPT2ForTokenClassification": Architecture(
            tasks=("token",),
            prefix="transformer.",
            rules=(Rule("classifier.*", "heads.token.output.*", bare=True),),
        ),
        "GPT2ForQuestionAnswering": Architecture(
            tasks=("span",),
            prefix="transformer.",
            rules=(Rule("qa_outputs.*", "heads.span.output.*", bare=True),),
        ),
    },
    synonyms=_SYNONYMS,
    aliases={"lm_head.weight": "tokens.weight"},
    ignored=_IGNORED,
    fixed=_GPT2_FIXED,
)

_GPT3 = Family(
    model_type="gpt3",
    title="GPT-3 shapes",
    paper="arXiv 2005.14165",
    configure=_gpt3,
    rules=_GPT2_TABLE,
    architectures={
        "GPT3LMHeadModel": Architecture(tasks=("language",), prefix="transformer.", rules=(_HEAD,))
    },
    synonyms=_SYNONYMS,
    aliases={"lm_head.weight": "tokens.weight"},
    fixed=_GPT2_FIXED,
)


def _xglm(fields: Fields) -> dict[str, Any]:
    width = fields.get("d_model", 1024)
    return {
        "hidden_size": width,
        "num_attention_heads": fields.get("attention_heads", 16),
        "intermediate_size": fields.get("ffn_dim", 4096),
        "num_decoder_layers": fields.get("num_layers", 24),
        "activation": activation(fields.get("activation_function", "gelu")),
        "position": "sinusoidal",
        "sinusoid_interleaved": False,
        "position_offset": 2,
        "max_position_embeddings": fields.get("max_position_embeddings", 2048),
        "embedding_scale": width**0.5 if fields.get("scale_embedding", True) else 1.0,
        "dropout": fields.get("dropout", 0.1),
        "attention_dropout": fields.get("attention_dropout", 0.1),
        "activation_dropout": fields.get("activation_dropout", 0.0),
        "pad_token_id": fields.get("pad_token_id", 1),
    }


_XGLM = Family(
    model_type="xglm",
    title="XGLM",
    paper="arXiv 2112.10668",
    configure=_xglm,
    rules=(
        Rule("embed_tokens.weight", "tokens.weight"),
        Rule("layers.{n}.self_attn.q_proj.*", "decoder.layers.{n}.attention.query.*"),
        Rule("layers.{n}.self_attn.k_proj.*", "decoder.layers.{n}.attention.key.*"),
        Rule("layers.{n}.self_attn.v_proj.*", "decoder.layers.{n}.attention.value.*"),
        Rule("layers.{n}.self_attn.out_proj.*", "decoder.layers.{n}.attention.output.*"),
        Rule("layers.{n}.self_attn_layer_norm.*", "decoder.layers.{n}.attention_norm.*"),
        Rule("layers.{n}.fc1.*", "decoder.layers.{n}.feed_forward.up.*"),
        Rule("layers.{n}.fc2.*", "decoder.layers.{n}.feed_forward.down.*"),
        Rule("layers.{n}.final_layer_norm.*", "decoder.layers.{n}.feed_forward_norm.*"),
        Rule("layer_norm.*", "decoder.final_norm.*"),
    ),
    architectures={
        "XGLMForCausalLM": Architecture(tasks=("language",), prefix="model.", rules=(_HEAD,)),
        "XGLMModel": Architecture(),
    },
    synonyms={
        "hidden_size": "d_model",
        "num_attention_heads": "attention_heads",
        "num_hidden_layers": "num_layers",
    },
    aliases={"lm_head.weight": "tokens.weight"},
    ignored=(r"(.+\.)?embed_positions\.weights",),
    fixed={"add_cross_attention": (False,)},
)

FAMILIES = (_GPT, _GPT2, _GPT3, _XGLM)
