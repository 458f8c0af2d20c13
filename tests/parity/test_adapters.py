"""Adapters against `peft`: what we write it loads, what it writes we load, with equal scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from idiolect.errors import CheckpointError, ConfigError
from idiolect.models.adapter import load_adapter, save_adapter
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import LoraConfig, add_lora, lora_layers
from models.tiny import tiny_tokenizer
from parity.reference import VOCABULARY, Reference, assert_close, batch, make

CASES = [
    ("llama", "LlamaForCausalLM", ["q_proj", "v_proj"], ("query", "value")),
    ("llama", "LlamaForCausalLM", ["gate_proj", "down_proj"], ("gate", "down")),
    ("gpt2", "GPT2LMHeadModel", ["c_attn"], ("query", "key", "value")),
    ("gpt2", "GPT2LMHeadModel", ["c_attn", "c_fc"], ("query", "value", "up")),
    ("gpt_neox", "GPTNeoXForCausalLM", ["query_key_value"], ("query", "value")),
    ("phi3", "Phi3ForCausalLM", ["qkv_proj", "o_proj"], ("query", "value", "output")),
    ("bert", "BertForMaskedLM", ["query", "attention.output.dense"], ("query", "output")),
    ("t5", "T5ForConditionalGeneration", ["q", "wo"], ("query", "down")),
]


def language_model(reference: Reference) -> LanguageModel:
    return LanguageModel(reference.network, tiny_tokenizer(), reference.settings)


def inputs(reference: Reference) -> tuple[dict[str, Any], dict[str, Any], torch.Tensor]:
    ids, mask = batch()
    both = reference.network.encoder is not None and reference.network.decoder is not None
    ours = {"decoder_input_ids": ids, "decoder_attention_mask": mask} if both else {}
    theirs = {"decoder_input_ids": ids, "decoder_attention_mask": mask} if both else {}
    return (
        {"input_ids": ids, "attention_mask": mask, **ours},
        {"input_ids": ids, "attention_mask": mask, **theirs},
        mask,
    )


@pytest.mark.parametrize(("model_type", "architecture", "theirs", "targets"), CASES)
def test_peft_loads_ours(
    tmp_path: Path, model_type: str, architecture: str, theirs: list[str], targets: tuple[str, ...]
) -> None:
    reference = make(tmp_path / "model", model_type, architecture)
    model = language_model(reference)
    add_lora(model.network, LoraConfig(r=3, lora_alpha=5.0, target_modules=targets))
    for layer in lora_layers(model.network).values():
        torch.nn.init.normal_(layer.lora_b, std=0.2)
    save_adapter(model, tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(reference.model, tmp_path / "adapter").eval()
    for_ours, for_theirs, mask = inputs(reference)
    with torch.no_grad():
        assert_close(model.network(**for_ours).logits, loaded(**for_theirs).logits, mask)


@pytest.mark.parametrize(("model_type", "architecture", "theirs", "targets"), CASES)
def test_ours_loads_peft(
    tmp_path: Path, model_type: str, architecture: str, theirs: list[str], targets: tuple[str, ...]
) -> None:
    reference = make(tmp_path / "model", model_type, architecture)
    model = language_model(reference)
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=theirs, fan_in_fan_out=model_type == "gpt2"
    )
    adapted = peft.get_peft_model(reference.model, config).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    names = load_adapter(model, tmp_path / "adapter")
    assert {name.rpartition(".")[2] for name in names} >= set(targets)
    for_ours, for_theirs, mask = inputs(reference)
    with torch.no_grad():
        assert_close(model.network(**for_ours).logits, adapted(**for_theirs).logits, mask)


def test_an_adapted_model_saves_as_an_ordinary_one(tmp_path: Path) -> None:
    model = language_model(make(tmp_path / "model", "gpt2", "GPT2LMHeadModel"))
    add_lora(model.network, LoraConfig(target_modules=("query", "down")))
    for layer in lora_layers(model.network).values():
        torch.nn.init.normal_(layer.lora_b, std=0.2)
    model.save(tmp_path / "merged")
    again = LanguageModel.load(tmp_path / "merged")
    ids = torch.randint(0, VOCABULARY, (2, 6))
    with torch.no_grad():
        assert_close(again.network(ids).logits, model.network(ids).logits)
    assert lora_layers(model.network), "saving left the adapters where they were"


def test_strange_adapters_are_refused(tmp_path: Path) -> None:
    reference = make(tmp_path / "model", "llama", "LlamaForCausalLM")
    model = language_model(reference)
    with pytest.raises(ConfigError, match="no adapters"):
        save_adapter(model, tmp_path / "adapter")
    add_lora(model.network, LoraConfig())
    save_adapter(model, tmp_path / "adapter")
    other = language_model(make(tmp_path / "other", "llama", "LlamaForCausalLM", hidden_size=64))
    with pytest.raises(CheckpointError, match="use an adapter of this model"):
        load_adapter(other, tmp_path / "adapter")
    assert not lora_layers(other.network)
    config = (tmp_path / "adapter" / "adapter_config.json").read_text()
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        config.replace('"bias": "none"', '"bias": "all", "use_dora": true')
    )
    with pytest.raises(ConfigError, match="bias, use_dora"):
        load_adapter(model, tmp_path / "adapter")
