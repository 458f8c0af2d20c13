"""Small models to train: with or without added rows, tied or untied, decoder or encoder."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import tokenizers
import torch
from tokenizers import models, pre_tokenizers, processors
from torch import Tensor

from idiolect.models.language_model import LanguageModel
from idiolect.models.registry import find_family
from idiolect.nn.transformer import Transformer
from idiolect.text.tokenizers.tokenizer import Tokenizer

SPECIAL = ["<unk>", "<s>", "</s>", "[MASK]"]
OLD = [*SPECIAL, *(f"w{i}" for i in range(36))]
NEW = [f"n{i}" for i in range(5)]

_SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    },
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
    },
    "bert": {
        "architectures": ["BertForMaskedLM"],
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    },
}


def tokenizer(*, grown: bool = True, template: bool = False) -> Tokenizer:
    """Whole words split at spaces; with a template, a text is put between <s> and </s>."""
    words = [*OLD, *NEW] if grown else OLD
    engine = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template:
        engine.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 1))
    names = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "mask": "[MASK]"}
    return Tokenizer.from_engine(engine, {f"{k}_token": v for k, v in names.items()})


def model(model_type: str = "llama", *, grown: bool = True, **fields: Any) -> LanguageModel:
    """A network with random weights; grown, it has five added rows in embedding and head."""
    settings = {"model_type": model_type, "vocab_size": len(OLD)} | _SHAPES[model_type] | fields
    torch.manual_seed(5)
    network = Transformer(find_family(settings).config(settings)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.1)
    if grown:
        grow(network)
    return LanguageModel(network, tokenizer(grown=grown, template=model_type == "bert"), settings)


def grow(network: Transformer) -> None:
    """Add a random row for each new word to every tensor with one entry per id."""
    network.add_rows(
        len(OLD),
        {
            name: 0.1 * torch.randn(len(NEW), *(() if name.endswith("bias") else (16,)))
            for name in network.vocabulary_rows()
        },
    )


def texts(count: int = 60, *, seed: int = 0) -> list[str]:
    """Sentences in which each word follows from the one before it, of mixed lengths."""
    draw = random.Random(seed)
    words = [*OLD[len(SPECIAL) :], *NEW]
    made = []
    for _ in range(count):
        at, text = draw.randrange(len(words)), []
        for _ in range(draw.randrange(3, 30)):
            text.append(words[at])
            at = (at * 7 + draw.randrange(2)) % len(words)
        made.append(" ".join(text))
    return made


def fingerprint(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()
