"""The layouts of published embedding models, made tiny by their own libraries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import processors

from encoding.models import tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError

TEXTS = ["a b c", "d", "e f g h i j k l m n o p"]
SHAPE = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def _published(
    folder: Path, model: transformers.PreTrainedModel, pooling: str, prompts: dict[str, str]
) -> SentenceTransformer:
    """Save a model with random weights as its publisher would."""
    engine = tiny_encoder().model.tokenizer.engine
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "split_special_tokens": True}
    if pooling == "lasttoken":  # Qwen3-Embedding pads on the left, and ends a text
        engine.post_processor = processors.TemplateProcessing(
            single="$A [SEP]", special_tokens=[("[SEP]", 3)]
        )
        special["padding_side"] = "left"
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **special)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(10)
    model.save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    modules = [Transformer(str(folder / "plain")), Pooling(16, pooling_mode=pooling), Normalize()]
    theirs = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
    theirs.save(str(folder / "published"))
    return theirs


def _qwen3() -> transformers.PreTrainedModel:
    config = transformers.Qwen3Config(**SHAPE, num_key_value_heads=1, head_dim=8)
    return transformers.Qwen3Model(config)


def _bert() -> transformers.PreTrainedModel:
    return transformers.BertModel(transformers.BertConfig(**SHAPE), add_pooling_layer=False)


@pytest.mark.parametrize(
    ("make", "pooling", "prompts"),
    [
        # Qwen3-Embedding: an instruction for queries only
        (_qwen3, "lasttoken", {"query": "a b c\nd e ", "document": ""}),
        # E5: a prompt for both sides, that of documents is named passage
        (_bert, "mean", {"query": "a b ", "passage": "c "}),
        # BGE and GTE v1: the first token
        (_bert, "cls", {"query": "e f "}),
    ],
    ids=["qwen3", "e5", "bge"],
)
def test_vectors_are_those_of_sentence_transformers(
    make: object, pooling: str, prompts: dict[str, str], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    theirs = _published(tmp_path, make(), pooling, prompts)  # type: ignore[operator]
    ours = Encoder.load(tmp_path / "published")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-5)
    queries = theirs.encode_query(TEXTS)
    np.testing.assert_allclose(ours.encode(TEXTS, prompt_name="query"), queries, atol=1e-5)
    documents = theirs.encode_document(TEXTS)
    np.testing.assert_allclose(ours.encode(TEXTS, prompt_name="document"), documents, atol=1e-5)
    assert not np.allclose(queries, documents, atol=1e-3)
    ours.save(tmp_path / "again")
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    np.testing.assert_allclose(again.encode_query(TEXTS), queries, atol=1e-5)


def test_an_architecture_of_custom_code_is_refused_by_name(tmp_path: Path) -> None:
    """As that of gte-base-en-v1.5."""
    tiny_encoder().save(tmp_path)
    path = tmp_path / "config.json"
    code = {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"}
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"model_type": "new", "auto_map": code})
    )
    with pytest.raises(ConfigError, match="'new'") as refused:
        Encoder.load(tmp_path)
    assert "code" in str(refused.value.hint)
