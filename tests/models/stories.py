"""The published 260K-parameter Llama-architecture model, converted into our layout.

Its file is a header of seven int32 (width, inner, layers, heads, key/value heads, vocabulary,
context) and float32 tensors in the order read below; its tokenizer file gives a score, a length and
the bytes of each piece. Its rotary pairs stand side by side, ours half a head apart, so rows
are reordered.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from idiolect.models.language_model import LanguageModel
from idiolect.models.network_files import read_network
from idiolect.models.weight_files import write_weights
from idiolect.text.tokenizers.sentencepiece import Piece, SentencePieceModel, build
from idiolect.text.tokenizers.tokenizer import Tokenizer

GREEDY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n"
    "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She "
    'said, "I want to play with your ball, but I can\'t find it."\n'
    "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to "
    'do."\n'
    "Lily didn't want to help her mom, so she"
)
"""What it continues with from nothing, 200 tokens, as its author publishes it."""


def load_stories(source: Path, scratch: Path) -> LanguageModel:
    """Convert the published files; `scratch` receives the weights in our layout."""
    settings, tensors = _read_weights(source / "stories260K.bin")
    scratch.mkdir(parents=True, exist_ok=True)
    write_weights(scratch, tensors)
    network = read_network(scratch, settings)
    return LanguageModel(network, _read_tokenizer(source / "tok512.bin"), settings)


def _read_weights(path: Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    data = path.read_bytes()
    width, inner, layers, heads, kv_heads, vocabulary, context = struct.unpack("7i", data[:28])
    numbers = torch.from_numpy(np.frombuffer(data, dtype=np.float32, offset=28).copy())
    head = width // heads
    taken = 0

    def take(*shape: int) -> Tensor:
        nonlocal taken
        count = int(np.prod(shape))
        taken += count
        return numbers[taken - count : taken].view(*shape)

    def halves(rows: Tensor, of: int) -> Tensor:
        return rows.view(of, head // 2, 2, width).transpose(1, 2).reshape(-1, width)

    embedding = take(vocabulary, width)
    stacked = {
        "input_layernorm": take(layers, width),
        "self_attn.q_proj": take(layers, width, width),
        "self_attn.k_proj": take(layers, kv_heads * head, width),
        "self_attn.v_proj": take(layers, kv_heads * head, width),
        "self_attn.o_proj": take(layers, width, width),
        "post_attention_layernorm": take(layers, width),
        "mlp.gate_proj": take(layers, inner, width),
        "mlp.down_proj": take(layers, width, inner),
        "mlp.up_proj": take(layers, inner, width),
    }
    norm = take(width)
    take(2, context, head // 2)  # tables of cosines and sines
    assert taken == len(numbers)

    tensors = {"model.embed_tokens.weight": embedding.clone(), "model.norm.weight": norm.clone()}
    for name, tensor in stacked.items():
        for layer in range(layers):
            one = tensor[layer]
            if name.endswith("q_proj"):
                one = halves(one, heads)
            if name.endswith("k_proj"):
                one = halves(one, kv_heads)
            tensors[f"model.layers.{layer}.{name}.weight"] = one.clone()
    settings: dict[str, object] = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return settings, tensors


def _read_tokenizer(path: Path) -> Tokenizer:
    data = path.read_bytes()
    pieces, place = [], 4
    while place < len(data):
        score, length = struct.unpack("fi", data[place : place + 8])
        text = data[place + 8 : place + 8 + length].decode()
        place += 8 + length
        number = len(pieces)
        if number < 3:
            text, kind = ("<unk>", "<s>", "</s>")[number], (2, 3, 3)[number]
        else:
            kind = 6 if number < 259 else 1
        pieces.append(Piece(text.replace(" ", "▁"), score, kind))
    special = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}
    model = SentencePieceModel(
        pieces=pieces,
        algorithm="bpe",
        byte_fallback=True,
        charsmap=b"",
        dummy_prefix=True,
        trim_spaces=False,
        special=special,
    )
    return Tokenizer.from_engine(build(model), {f"{k}_token": v for k, v in special.items()})
