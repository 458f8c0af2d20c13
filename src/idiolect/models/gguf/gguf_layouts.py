"""How the metadata of GGUF architectures maps to the fields of `config.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["GGUF_LAYOUTS", "REAL_NUMBERS", "GGUFLayout"]

_COMMON = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_ROTARY = _COMMON | {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
}
REAL_NUMBERS = {
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "rope.freq_base",
    "rope.freq_base_swa",
}
"""Keys whose values are float32, even if `config.json` has a whole number."""


@dataclass(frozen=True)
class GGUFLayout:
    """How the metadata of one GGUF architecture maps to `config.json`."""

    model_type: str
    architecture: str
    fields: Mapping[str, str]
    """Fields of `config.json` by their key, without the architecture's prefix."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    """The same as `fields`, for booleans."""
    permuted: bool = False
    """Whether query and key rows are permuted for llama.cpp's rotary positions."""
    norm_offset: float = 0.0
    """Constant that the file adds to the weights of norms."""
    complete: Callable[[dict[str, Any]], None] | None = None
    """Computes fields that are not in the file, in place."""

    def permutes(self, stored: str) -> bool:
        """Return whether the rows of a tensor are permuted, by its name in the file."""
        return self.permuted and (".attn_q." in stored or ".attn_k." in stored)


def _rotary_share(name: str) -> Callable[[dict[str, Any]], None]:
    """Return a function that sets a field to the share of a head's dimensions that is rotated."""

    def complete(settings: dict[str, Any]) -> None:
        turned, heads = settings.pop("rotary_size", 0), settings.get("num_attention_heads", 0)
        if turned and heads:
            settings[name] = turned * heads / settings.get("hidden_size", 1)
        if settings.get("sliding_window") == 0:
            settings["sliding_window"] = None  # Phi-4 has none.

    return complete


def _gemma_scale(settings: dict[str, Any]) -> None:
    """Set the attention scale's base: the head size; in the 27B models hidden size / heads."""
    if settings.get("num_hidden_layers") in (46, 62) and settings.get("num_attention_heads"):
        share = settings.get("hidden_size", 0) // settings["num_attention_heads"]
        settings["query_pre_attn_scalar"] = share
    elif "head_dim" in settings:
        settings["query_pre_attn_scalar"] = settings["head_dim"]


_GEMMA = _ROTARY | {"attention.sliding_window": "sliding_window"}
_GEMMA3 = _GEMMA | {"rope.freq_base_swa": "rope_local_base_freq"}
GGUF_LAYOUTS = {
    "llama": GGUFLayout("llama", "LlamaForCausalLM", _ROTARY, permuted=True),
    "qwen2": GGUFLayout("qwen2", "Qwen2ForCausalLM", _ROTARY, {"use_sliding_window": False}),
    "qwen3": GGUFLayout("qwen3", "Qwen3ForCausalLM", _ROTARY, {"use_sliding_window": False}),
    "gpt2": GGUFLayout(
        "gpt2",
        "GPT2LMHeadModel",
        {
            "context_length": "n_positions",
            "embedding_length": "n_embd",
            "block_count": "n_layer",
            "feed_forward_length": "n_inner",
            "attention.head_count": "n_head",
            "attention.layer_norm_epsilon": "layer_norm_epsilon",
        },
    ),
    "bert": GGUFLayout(
        "bert",
        "BertModel",
        _COMMON | {"attention.layer_norm_epsilon": "layer_norm_eps"},
        {"hidden_act": "gelu"},
    ),
    "modern-bert": GGUFLayout(
        "modernbert",
        "ModernBertModel",
        _COMMON
        | {
            "attention.layer_norm_epsilon": "norm_eps",
            "attention.sliding_window": "local_attention",
            "rope.freq_base": "global_rope_theta",
            "rope.freq_base_swa": "local_rope_theta",
        },
    ),
    "gptneox": GGUFLayout(
        "gpt_neox",
        "GPTNeoXForCausalLM",
        _COMMON
        | {"attention.layer_norm_epsilon": "layer_norm_eps", "rope.dimension_count": "rotary_size"},
        flags={"use_parallel_residual": "use_parallel_residual"},
        complete=_rotary_share("rotary_pct"),
    ),
    "starcoder2": GGUFLayout(
        "starcoder2",
        "Starcoder2ForCausalLM",
        _ROTARY | {"attention.layer_norm_epsilon": "norm_epsilon"},
        {"sliding_window": 4096},
    ),
    "phi3": GGUFLayout(
        "phi3",
        "Phi3ForCausalLM",
        _ROTARY
        | {"attention.sliding_window": "sliding_window", "rope.dimension_count": "rotary_size"},
        complete=_rotary_share("partial_rotary_factor"),
    ),
    "olmo2": GGUFLayout("olmo2", "Olmo2ForCausalLM", _ROTARY),
    "smollm3": GGUFLayout("smollm3", "SmolLM3ForCausalLM", _ROTARY, permuted=True),
    "gemma2": GGUFLayout(
        "gemma2",
        "Gemma2ForCausalLM",
        _GEMMA
        | {
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        norm_offset=1.0,
        complete=_gemma_scale,
    ),
    "gemma3": GGUFLayout(
        "gemma3_text", "Gemma3ForCausalLM", _GEMMA3, norm_offset=1.0, complete=_gemma_scale
    ),
    "gemma-embedding": GGUFLayout(
        "gemma3_text",
        "Gemma3TextModel",
        _GEMMA3,
        {"use_bidirectional_attention": True},
        norm_offset=1.0,
        complete=_gemma_scale,
    ),
}
