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
NAMES = {
    "gemma3_text": "gemma3",
    "gpt_neox": "gptneox",
    "modernbert": "modern-bert",
}
"""The architecture of a file, where it is not the model's type."""
BODIES = ("bert", "modernbert")


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
    causal = model_type not in BODIES and not fields.get("use_bidirectional_attention")
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
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
    name = NAMES.get(config.model_type, config.model_type)
    if getattr(config, "use_bidirectional_attention", False):
        name = "gemma-embedding"
    writer = gguf.GGUFWriter(path, name)
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", heads)
    write_settings(writer, config)
    write_tokenizer(writer)
    architecture = next(k for k, n in gguf.MODEL_ARCH_NAMES.items() if n == name)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    tied = getattr(config, "tie_word_embeddings", True)
    for published, tensor in model.state_dict().items():
        theirs = published.replace("lm_head", "embed_out") if name == "gptneox" else published
        stored = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
        if stored is None or (stored == "output.weight" and tied):
            continue
        values = tensor.float().numpy()
        if name in ("llama", "smollm3") and (".attn_q." in stored or ".attn_k." in stored):
            count = shared if ".attn_k." in stored else heads
            halves = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        if config.model_type == "gpt2" and values.ndim == 2 and ".h." in published:
            values = values.T
        if name == "gptneox" and ".attn_qkv." in stored:
            by_head = values.reshape(heads, 3, -1, *values.shape[1:])
            values = by_head.swapaxes(0, 1).reshape(values.shape)
        if name.startswith("gemma") and stored.endswith("norm.weight"):
            values = values + 1
        kind = storage if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        packed = gguf.quantize(numpy.ascontiguousarray(values), kind)
        writer.add_tensor(stored, packed, raw_dtype=kind)
    for stored, values in (tensors or {}).items():
        writer.add_tensor(stored, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_settings(writer: gguf.GGUFWriter, config: Any) -> None:
    """Write the shape of a model."""
    heads = config.num_attention_heads
    fields = config.to_dict()
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or config.n_inner)
    writer.add_head_count(heads)
    if "num_key_value_heads" in fields:
        writer.add_head_count_kv(config.num_key_value_heads)
    if fields.get("head_dim"):
        writer.add_key_length(config.head_dim)
    if "rms_norm_eps" in fields:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    for name in ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"):
        if name in fields:
            writer.add_layer_norm_eps(fields[name])
    rope = fields.get("rope_parameters") or {}
    whole = rope.get("full_attention", rope)
    if whole and config.model_type != "gpt_neox":
        writer.add_rope_freq_base(whole["rope_theta"])
    if "partial_rotary_factor" in rope:
        share = rope["partial_rotary_factor"] * config.hidden_size
        writer.add_rope_dimension_count(int(share) // heads)
    if "use_parallel_residual" in fields:
        writer.add_parallel_residual(config.use_parallel_residual)
    if "local_attention" in fields:
        writer.add_sliding_window(config.local_attention)
    elif config.model_type in ("gemma2", "gemma3_text", "phi3"):
        writer.add_sliding_window(fields["sliding_window"] or 0)
    if config.model_type in ("phi3", "smollm3"):
        writer.add_pad_token_id(config.pad_token_id)  # The default is beyond so few ids.
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


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
