"""BERT (1810.04805), RoBERTa (1907.11692) and XLM-R (1911.02116): post-norm encoders."""

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


def _roberta_family(model_type: str, name: str, title: str, paper: str) -> Family:
    return Family(
        model_type=model_type,
        title=title,
        paper=paper,
        configure=_roberta,
        rules=_RULES,
        architectures={
            f"{name}ForMaskedLM": Architecture(
                tasks=("language",), prefix="roberta.", rules=_ROBERTA_HEAD, config=_HEAD
            ),
            f"{name}Model": Architecture(rules=(_POOLER,), config=_POOL),
            f"{name}ForSequenceClassification": Architecture(
                tasks=("sequence",),
                prefix="roberta.",
                rules=(
                    Rule("classifier.dense.*", "pooler.dense.*", bare=True),
                    Rule("classifier.out_proj.*", "heads.sequence.output.*", bare=True),
                ),
                config=_POOL,
            ),
            f"{name}ForTokenClassification": Architecture(
                tasks=("token",), prefix="roberta.", rules=(_TOKEN,)
            ),
            f"{name}ForQuestionAnswering": Architecture(
                tasks=("span",), prefix="roberta.", rules=(_SPAN,)
            ),
        },
        aliases={
            "lm_head.decoder.weight": "tokens.weight",
            "lm_head.decoder.bias": "heads.language.bias",
        },
        ignored=_IGNORED,
        fixed=_FIXED,
    )


FAMILIES = (
    _BERT,
    _roberta_family("roberta", "Roberta", "RoBERTa", "arXiv 1907.11692"),
    _roberta_family("xlm-roberta", "XLMRoberta", "XLM-R", "arXiv 1911.02116"),
)
