"""The models of `transformers` that every family is compared with: type, class, fields."""

from __future__ import annotations

from typing import Any

_MODERN = {"local_attention": 4, "num_hidden_layers": 4}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_GEMMA = {"sliding_window": 4, "query_pre_attn_scalar": 12}
ENCODERS: list[tuple[str, str, dict[str, Any]]] = [
    ("bert", "BertForMaskedLM", {}),
    ("bert", "BertForPreTraining", {}),
    ("roberta", "RobertaForMaskedLM", {}),
    ("xlm-roberta", "XLMRobertaForMaskedLM", {"hidden_act": "relu"}),
    ("xlm", "XLMWithLMHeadModel", {"n_langs": 3}),
    ("xlm", "XLMWithLMHeadModel", {"n_langs": 1, "gelu_activation": False}),
    ("xlm", "XLMWithLMHeadModel", {"n_langs": 2, "sinusoidal_embeddings": True}),
    ("distilbert", "DistilBertForMaskedLM", {}),
    ("distilbert", "DistilBertForMaskedLM", {"activation": "relu", "sinusoidal_pos_embds": True}),
    ("mpnet", "MPNetForMaskedLM", {}),
    ("modernbert", "ModernBertForMaskedLM", _MODERN),
    (
        "modernbert",
        "ModernBertForMaskedLM",
        _MODERN
        | {"norm_bias": True, "attention_bias": True, "mlp_bias": True}
        | {"classifier_bias": True, "decoder_bias": False, "tie_word_embeddings": False}
        | {"classifier_activation": "relu"},
    ),
    # EmbeddingGemma
    (
        "gemma3_text",
        "Gemma3ForCausalLM",
        _GEMMA | {"sliding_window_pattern": 2, "use_bidirectional_attention": True},
    ),
]
DECODERS: list[tuple[str, str, dict[str, Any]]] = [
    ("openai-gpt", "OpenAIGPTLMHeadModel", {}),
    ("gpt2", "GPT2LMHeadModel", {}),
    ("gpt2", "GPT2LMHeadModel", {"n_inner": 40, "activation_function": "gelu"}),
    ("gpt2", "GPT2LMHeadModel", {"tie_word_embeddings": False}),
    ("xglm", "XGLMForCausalLM", {}),
    ("llama", "LlamaForCausalLM", {}),
    ("llama", "LlamaForCausalLM", {"tie_word_embeddings": True, "head_dim": 16}),
    ("llama", "LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    ("llama", "LlamaForCausalLM", {"rope_parameters": {**_LLAMA3, "rope_theta": 5e5}}),
    ("llama", "LlamaForCausalLM", {"rope_parameters": {**_YARN, "rope_theta": 1e4}}),
    (
        "llama",
        "LlamaForCausalLM",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ),
    ("mistral", "MistralForCausalLM", {"sliding_window": 4}),
    ("mistral", "MistralForCausalLM", {"sliding_window": None}),
    ("qwen2", "Qwen2ForCausalLM", {}),
    (
        "qwen2",
        "Qwen2ForCausalLM",
        {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    ),
    ("qwen3", "Qwen3ForCausalLM", {}),
    (
        "qwen3",
        "Qwen3ForCausalLM",
        {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
        | {"use_sliding_window": True, "sliding_window": 2, "tie_word_embeddings": True},
    ),
    ("gpt_neox", "GPTNeoXForCausalLM", {}),
    (
        "gpt_neox",
        "GPTNeoXForCausalLM",
        {"use_parallel_residual": False, "attention_bias": False, "rotary_pct": 0.5}
        | {"rotary_emb_base": 5000, "tie_word_embeddings": True},
    ),
    ("opt", "OPTForCausalLM", {}),
    ("opt", "OPTForCausalLM", {"do_layer_norm_before": False, "tie_word_embeddings": False}),
    ("opt", "OPTForCausalLM", {"enable_bias": False, "_remove_final_layer_norm": True}),
    ("smollm3", "SmolLM3ForCausalLM", {"no_rope_layer_interval": 2}),
    (
        "smollm3",
        "SmolLM3ForCausalLM",
        {"use_sliding_window": True, "sliding_window": 3, "no_rope_layers": [1, 0, 0]}
        | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    ),
    ("olmo2", "Olmo2ForCausalLM", {}),
    ("olmo2", "Olmo2ForCausalLM", {"attention_bias": True, "tie_word_embeddings": True}),
    ("phi3", "Phi3ForCausalLM", {}),
    (
        "phi3",
        "Phi3ForCausalLM",
        {"num_key_value_heads": 1, "sliding_window": 4, "partial_rotary_factor": 0.75},
    ),
    ("starcoder2", "Starcoder2ForCausalLM", {}),
    ("starcoder2", "Starcoder2ForCausalLM", {"sliding_window": 4, "use_bias": False}),
    ("gemma3_text", "Gemma3ForCausalLM", _GEMMA | {"sliding_window_pattern": 2}),
    (
        "gemma3_text",
        "Gemma3ForCausalLM",
        {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}
        | _GEMMA
        | {"final_logit_softcapping": 2.0, "attention_bias": True, "head_dim": 16},
    ),
    (
        "gemma3_text",
        "Gemma3ForCausalLM",
        _GEMMA | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 5e4},
    ),
    ("gemma2", "Gemma2ForCausalLM", _GEMMA | {"_attn_implementation": "eager"}),
    (
        "gemma2",
        "Gemma2ForCausalLM",
        _GEMMA
        | {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 2.0}
        | {"_attn_implementation": "eager"},
    ),
]
BOTH: list[tuple[str, str, dict[str, Any]]] = [
    ("t5", "T5ForConditionalGeneration", {}),
    ("t5", "T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu"}),
    (
        "t5",
        "T5ForConditionalGeneration",
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    ("mt5", "MT5ForConditionalGeneration", {}),
    ("bart", "BartForConditionalGeneration", {}),
    ("bart", "BartForConditionalGeneration", {"scale_embedding": True}),
    ("mbart", "MBartForConditionalGeneration", {"scale_embedding": True}),
]
BODIES: list[tuple[str, str]] = [
    ("bert", "BertModel"),
    ("roberta", "RobertaModel"),
    ("xlm-roberta", "XLMRobertaModel"),
    ("modernbert", "ModernBertModel"),
    ("distilbert", "DistilBertModel"),
    ("mpnet", "MPNetModel"),
    ("xlm", "XLMModel"),
    ("openai-gpt", "OpenAIGPTModel"),
    ("gpt2", "GPT2Model"),
    ("xglm", "XGLMModel"),
    ("gpt_neox", "GPTNeoXModel"),
    ("opt", "OPTModel"),
    ("llama", "LlamaModel"),
    ("mistral", "MistralModel"),
    ("qwen2", "Qwen2Model"),
    ("qwen3", "Qwen3Model"),
    ("smollm3", "SmolLM3Model"),
    ("olmo2", "Olmo2Model"),
    ("phi3", "Phi3Model"),
    ("starcoder2", "Starcoder2Model"),
    ("gemma2", "Gemma2Model"),
    ("gemma3_text", "Gemma3TextModel"),
    ("t5", "T5EncoderModel"),
    ("t5", "T5Model"),
    ("mt5", "MT5EncoderModel"),
    ("bart", "BartModel"),
    ("mbart", "MBartModel"),
]
