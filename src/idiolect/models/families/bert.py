"""BERT (1810.04805), RoBERTa (1907.11692), XLM-R (1911.02116), DistilBERT (1910.01108) and MPNet
(2004.09297): post-norm encoders.
"""

from __future__ import annotations

from typing import Any

from idiolect.models.family import Architecture, Family, Fields, activation
from idiolect.models.weight_names import Rule

__all__ = ["FAMILIES"]

_RULES = (
    Rule("embeddings.word_embeddings.weight", "tokens.weight"),
    Rule("embeddings.position_embeddings.weight", "encoder.table.weight"),
    Rule("embeddings.token_type_embeddings.weight", "types.weight"),
    Rule("embeddings.LayerNorm.*", "encoder.embedding_norm.*"),
    Rule("encoder.layer.{n}.attention.self.query.*", "encoder.layers.{n}.attention.query.*"),
    Rule("encoder.layer.{n}.attention.self.key.*", "encoder.layers.{n}.attention.key.*"),
    Rule("encoder.layer.{n}.attention.self.value.*", "encoder.layers.{n}.attention.value.*"),
    Rule("encoder.layer.{n}.attention.output.dense.*", "encoder.layers.{n}.attention.output.*"),
    Rule("encoder.layer.{n}.attention.output.LayerNorm.*", "encoder.layers.{n}.attention_norm.*"),
    Rule("encoder.layer.{n}.intermediate.dense.*", "encoder.layers.{n}.feed_forward.up.*"),
    Rule("encoder.layer.{n}.output.dense.*", "encoder.layers.{n}.feed_forward.down.*"),
    Rule("encoder.layer.{n}.output.LayerNorm.*", "encoder.layers.{n}.feed_forward_norm.*"),
)
_POOLER = Rule("pooler.dense.*", "pooler.dense.*")
_TOKEN = Rule("classifier.*", "heads.token.output.*", bare=True)
_SPAN = Rule("qa_outputs.*", "heads.span.output.*", bare=True)
_POOL = {"pool": "first", "pool_dense": True}
_HEAD = {"head_transform": True, "head_bias": True}


def _encoder(fields: Fields) -> dict[str, Any]:
    return {
        "hidden_size": fields.get("hidden_size", 768),
        "num_attention_heads": fields.get("num_attention_heads", 12),
        "intermediate_size": fields.get("intermediate_size", 3072),
        "num_encoder_layers": fields.get("num_hidden_layers", 12),
        "norm_eps": fields.get("layer_norm_eps", 1e-12),
        "norm_placement": "after_sum",
        "embedding_norm": True,
        "final_norm": False,
        "activation": activation(fields.get("hidden_act", "gelu")),
        "type_vocab_size": fields.get("type_vocab_size", 2),
        "dropout": fields.get("hidden_dropout_prob", 0.1),
        "attention_dropout": fields.get("attention_probs_dropout_prob", 0.1),
        "max_position_embeddings": fields.get("max_position_embeddings", 512),
        "pad_token_id": fields.get("pad_token_id", 0),
    }


def _roberta(fields: Fields) -> dict[str, Any]:
    values = _encoder(fields)
    pad = fields.get("pad_token_id", 1)
    # Rows up to the padding id are unused: the first token's position is the row after it.
    return values | {
        "pad_token_id": pad,
        "head_activation": "gelu",
        "position_offset": pad + 1,
        "max_position_embeddings": values["max_position_embeddings"] - pad - 1,
    }


_FIXED = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "position_embedding_type": ("absolute",),
}
_IGNORED = (r"(.+\.)?embeddings\.position_ids", r"(.+\.)?embeddings\.token_type_ids")

_BERT_HEAD = (
    Rule("cls.predictions.bias", "heads.language.bias", bare=True),
    Rule("cls.predictions.transform.dense.*", "heads.language.dense.*", bare=True),
    Rule("cls.predictions.transform.LayerNorm.*", "heads.language.norm.*", bare=True),
    Rule("cls.predictions.decoder.weight", "heads.language.weight", bare=True),
)
_NEXT = Rule("cls.seq_relationship.*", "heads.next_sentence.output.*", bare=True)

_BERT = Family(
    model_type="bert",
    title="BERT",
    paper="arXiv 1810.04805",
    configure=_encoder,
    rules=_RULES,
    architectures={
        "BertForMaskedLM": Architecture(
            tasks=("language",), prefix="bert.", rules=_BERT_HEAD, config=_HEAD
        ),
        "BertModel": Architecture(rules=(_POOLER,), config=_POOL),
        "BertForPreTraining": Architecture(
            tasks=("language", "next_sentence"),
            prefix="bert.",
            rules=(*_BERT_HEAD, _NEXT, _POOLER),
            config=_HEAD | _POOL,
        ),
        "BertForNextSentencePrediction": Architecture(
            tasks=("next_sentence",), prefix="bert.", rules=(_NEXT, _POOLER), config=_POOL
        ),
        "BertForSequenceClassification": Architecture(
            tasks=("sequence",),
            prefix="bert.",
            rules=(_POOLER, Rule("classifier.*", "heads.sequence.output.*", bare=True)),
            config=_POOL,
        ),
        "BertForTokenClassification": Architecture(
            tasks=("token",), prefix="bert.", rules=(_TOKEN,)
        ),
        "BertForQuestionAnswering": Architecture(tasks=("span",), prefix="bert.", rules=(_SPAN,)),
    },
    aliases={
        "cls.predictions.decoder.weight": "tokens.weight",
        "cls.predictions.decoder.bias": "heads.language.bias",
    },
    ignored=_IGNORED,
    fixed=_FIXED,
)

_ROBERTA_HEAD = (
    Rule("lm_head.bias", "heads.language.bias", bare=True),
    Rule("lm_head.dense.*", "heads.language.dense.*", bare=True),
    Rule("lm_head.layer_norm.*", "heads.language.norm.*", bare=True),
    Rule("lm_head.decoder.weight", "heads.language.weight", bare=True),
)


def _roberta_classes(prefix: str, name: str) -> dict[str, Any]:
    prefix = f"{prefix}."
    return {
        "architectures": {
            f"{name}ForMaskedLM": Architecture(
                tasks=("language",), prefix=prefix, rules=_ROBERTA_HEAD, config=_HEAD
            ),
            f"{name}Model": Architecture(rules=(_POOLER,), config=_POOL),
            f"{name}ForSequenceClassification": Architecture(
                tasks=("sequence",),
                prefix=prefix,
                rules=(
                    Rule("classifier.dense.*", "pooler.dense.*", bare=True),
                    Rule("classifier.out_proj.*", "heads.sequence.output.*", bare=True),
                ),
                config=_POOL,
            ),
            f"{name}ForTokenClassification": Architecture(
                tasks=("token",), prefix=prefix, rules=(_TOKEN,)
            ),
            f"{name}ForQuestionAnswering": Architecture(
                tasks=("span",), prefix=prefix, rules=(_SPAN,)
            ),
        },
        "aliases": {
            "lm_head.decoder.weight": "tokens.weight",
            "lm_head.decoder.bias": "heads.language.bias",
        },
    }


def _roberta_family(model_type: str, name: str, title: str, paper: str) -> Family:
    return Family(
        model_type=model_type,
        title=title,
        paper=paper,
        configure=_roberta,
        rules=_RULES,
        **_roberta_classes("roberta", name),
        ignored=_IGNORED,
        fixed=_FIXED,
    )


def _distilbert(fields: Fields) -> dict[str, Any]:
    return {
        "hidden_size": fields.get("dim", 768),
        "num_attention_heads": fields.get("n_heads", 12),
        "intermediate_size": fields.get("hidden_dim", 3072),
        "num_encoder_layers": fields.get("n_layers", 6),
        "norm_eps": 1e-12,
        "norm_placement": "after_sum",
        "embedding_norm": True,
        "final_norm": False,
        "activation": activation(fields.get("activation", "gelu")),
        "dropout": fields.get("dropout", 0.1),
        "attention_dropout": fields.get("attention_dropout", 0.1),
        "max_position_embeddings": fields.get("max_position_embeddings", 512),
        "pad_token_id": fields.get("pad_token_id", 0),
    }


_DISTILBERT_LAYER, _LAYER = "transformer.layer.{n}", "encoder.layers.{n}"
_DISTILBERT = Family(
    model_type="distilbert",
    title="DistilBERT",
    paper="arXiv 1910.01108",
    configure=_distilbert,
    rules=(
        Rule("embeddings.word_embeddings.weight", "tokens.weight"),
        # Sinusoidal positions are stored like learned ones, so both are loaded as a table.
        Rule("embeddings.position_embeddings.weight", "encoder.table.weight"),
        Rule("embeddings.LayerNorm.*", "encoder.embedding_norm.*"),
        Rule(f"{_DISTILBERT_LAYER}.attention.q_lin.*", f"{_LAYER}.attention.query.*"),
        Rule(f"{_DISTILBERT_LAYER}.attention.k_lin.*", f"{_LAYER}.attention.key.*"),
        Rule(f"{_DISTILBERT_LAYER}.attention.v_lin.*", f"{_LAYER}.attention.value.*"),
        Rule(f"{_DISTILBERT_LAYER}.attention.out_lin.*", f"{_LAYER}.attention.output.*"),
        Rule(f"{_DISTILBERT_LAYER}.sa_layer_norm.*", f"{_LAYER}.attention_norm.*"),
        Rule(f"{_DISTILBERT_LAYER}.ffn.lin1.*", f"{_LAYER}.feed_forward.up.*"),
        Rule(f"{_DISTILBERT_LAYER}.ffn.lin2.*", f"{_LAYER}.feed_forward.down.*"),
        Rule(f"{_DISTILBERT_LAYER}.output_layer_norm.*", f"{_LAYER}.feed_forward_norm.*"),
    ),
    architectures={
        "DistilBertForMaskedLM": Architecture(
            tasks=("language",),
            prefix="distilbert.",
            rules=(
                Rule("vocab_transform.*", "heads.language.dense.*", bare=True),
                Rule("vocab_layer_norm.*", "heads.language.norm.*", bare=True),
                Rule("vocab_projector.bias", "heads.language.bias", bare=True),
                Rule("vocab_projector.weight", "heads.language.weight", bare=True),
            ),
            config=_HEAD,
        ),
        "DistilBertModel": Architecture(),
        "DistilBertForSequenceClassification": Architecture(
            tasks=("sequence",),
            prefix="distilbert.",
            rules=(
                Rule("pre_classifier.*", "pooler.dense.*", bare=True),
                Rule("classifier.*", "heads.sequence.output.*", bare=True),
            ),
            config=_POOL | {"pool_activation": "relu"},
        ),
        "DistilBertForTokenClassification": Architecture(
            tasks=("token",), prefix="distilbert.", rules=(_TOKEN,)
        ),
        "DistilBertForQuestionAnswering": Architecture(
            tasks=("span",), prefix="distilbert.", rules=(_SPAN,)
        ),
    },
    synonyms={
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    },
    aliases={"vocab_projector.weight": "tokens.weight"},
    ignored=_IGNORED,
)


def _mpnet(fields: Fields) -> dict[str, Any]:
    values = _encoder(fields)
    # The padding id is always 1, and so positions start at row 2.
    return values | {
        "pad_token_id": 1,
        "type_vocab_size": 0,
        "position": "learned_buckets",
        "relative_buckets": fields.get("relative_attention_num_buckets", 32),
        "position_offset": 2,
        "max_position_embeddings": values["max_position_embeddings"] - 2,
        "head_activation": "gelu",
    }


_MPNET_LAYER = "encoder.layer.{n}"
_MPNET = Family(
    model_type="mpnet",
    title="MPNet",
    paper="arXiv 2004.09297",
    configure=_mpnet,
    rules=(
        *(rule for rule in _RULES if ".attention." not in rule.theirs),
        Rule("encoder.relative_attention_bias.weight", "encoder.score_bias.table.weight"),
        Rule(f"{_MPNET_LAYER}.attention.attn.q.*", f"{_LAYER}.attention.query.*"),
        Rule(f"{_MPNET_LAYER}.attention.attn.k.*", f"{_LAYER}.attention.key.*"),
        Rule(f"{_MPNET_LAYER}.attention.attn.v.*", f"{_LAYER}.attention.value.*"),
        Rule(f"{_MPNET_LAYER}.attention.attn.o.*", f"{_LAYER}.attention.output.*"),
        Rule(f"{_MPNET_LAYER}.attention.LayerNorm.*", f"{_LAYER}.attention_norm.*"),
    ),
    **_roberta_classes("mpnet", "MPNet"),
    ignored=_IGNORED,
)

FAMILIES = (
    _BERT,
    _DISTILBERT,
    _MPNET,
    _roberta_family("roberta", "Roberta", "RoBERTa", "arXiv 1907.11692"),
    _roberta_family("xlm-roberta", "XLMRoberta", "XLM-R", "arXiv 1911.02116"),
)
