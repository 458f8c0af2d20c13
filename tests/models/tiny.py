"""A tiny language model made in memory: for tests of files, not of numbers."""

from __future__ import annotations

from typing import Any

import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from idiolect.models.language_model import LanguageModel
from idiolect.models.registry import find_family
from idiolect.nn.transformer import Transformer
from idiolect.text.tokenizers.tokenizer import Tokenizer

WORDS = ["<unk>", "<s>", "</s>", "a", "b", "c", "d", "▁e"]


def tiny_tokenizer(words: list[str] | None = None) -> Tokenizer:
    """Whole words, split at spaces."""
    vocabulary = {word: i for i, word in enumerate(words or WORDS)}
    engine = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer.from_engine(engine, {"unk_token": "<unk>"})


def tiny_model(model_type: str = "llama", **fields: Any) -> LanguageModel:
    """A network of a few hundred weights with the tokenizer above."""
    settings: dict[str, Any] = {
        "llama": {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
        },
        "bert": {
            "model_type": "bert",
            "architectures": ["BertForPreTraining"],
            "hidden_size": 8,
            "intermediate_size": 12,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
        },
    }[model_type]
    settings = settings | {"vocab_size": len(WORDS)} | fields
    torch.manual_seed(0)
    network = Transformer(find_family(settings).config(settings)).eval()
    return LanguageModel(network, tiny_tokenizer(), settings)
