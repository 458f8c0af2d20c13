"""Write tiny models of `transformers` as GGUF files, as llama.cpp's converter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy
import torch
import transformers

TOKENS = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "Ġt", "he", "Ġthe"]
UNUSED = [f"[PAD{number}]" for number in range(len(TOKENS), 64)]
MERGES = ["Ġ t", "h e", "Ġt he"]


def tiny(model_type: str, **fields: Any) -> Any:
    """Make a random model of two layers with 64 columns, so that every block format fits."""
    shape = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_inner": 96,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    config = transformers.AutoConfig.for_model(model_type, **(shape | fields))
    torch.manual_seed(0)
    auto = transformers.AutoModel if model_type == "bert" else transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
    return model


def write_model(
    path: Path,
    model: Any,
    *,
    storage: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    tensors: dict[str, numpy.ndarray[Any, Any]] | None = None,
) -> Path:
    """Write a model and a byte-level tokenizer; matrices in the given storage type."""
    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or config.n_inner)
    writer.add_head_count(heads)
    if hasattr(config, "rms_norm_eps"):
        writer.add_head_count_kv(shared)
        writer.add_key_length(config.head_dim)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    else:
        epsilon = getattr(config, "layer_norm_eps", None) or config.layer_norm_epsilon
        writer.add_layer_norm_eps(epsilon)
    write_tokenizer(writer)
    architecture = next(k for k, n in gguf.MODEL_ARCH_NAMES.items() if n == config.model_type)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    tied = getattr(config, "tie_word_embeddings", True)
    for name, tensor in model.state_dict().items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored is None or (stored == "output.weight" and tied):
            continue
        values = tensor.float().numpy()
        if config.model_type == "llama" and (".attn_q." in stored or ".attn_k." in stored):
            count = shared if ".attn_k." in stored else heads
            halves = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        if config.model_type == "gpt2" and values.ndim == 2 and ".h." in name:
            values = values.T
        kind = storage if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        packed = gguf.quantize(numpy.ascontiguousarray(values), kind)
        writer.add_tensor(stored, packed, raw_dtype=kind)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Write a byte-level tokenizer of the kind `gpt2`."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS + UNUSED)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3) + [5] * len(UNUSED))
    writer.add_token_merges(MERGES)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages }}")
