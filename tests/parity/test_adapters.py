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
from idiolect.nn.lora import LoraConfig, add_lora, lora_layers, merge_lora
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


VARIANTS: list[dict[str, bool]] = [
    {"use_rslora": True},
    {"use_dora": True},
    {"use_rslora": True, "use_dora": True},
]
# Every layout without variants; each variant on a plain, a transposed and a fused layout.
ALL = [(*case, {}) for case in CASES] + [
    (*CASES[number], variant) for number in (0, 3, 4, 5) for variant in VARIANTS
]
LAYOUTS = pytest.mark.parametrize(
    ("model_type", "architecture", "theirs", "targets", "variant"), ALL
)


def disturb(adapted: torch.nn.Module) -> None:
    """Move every trained part of an adapter away from where it begins."""
    torch.manual_seed(7)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or name.endswith("lora_b"):
            torch.nn.init.normal_(parameter, std=0.2)
        if "lora_magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.rand_like(parameter)


@LAYOUTS
def test_peft_loads_ours_and_merges_it(
    tmp_path: Path,
    model_type: str,
    architecture: str,
    theirs: list[str],
    targets: tuple[str, ...],
    variant: dict[str, bool],
) -> None:
    reference = make(tmp_path / "model", model_type, architecture)
    model = language_model(reference)
    add_lora(model.network, LoraConfig(r=3, lora_alpha=5.0, target_modules=targets, **variant))
    disturb(model.network)
    save_adapter(model, tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(reference.model, tmp_path / "adapter").eval()
    settings = loaded.peft_config["default"]
    assert (settings.use_rslora, settings.use_dora) == (
        variant.get("use_rslora", False),
        variant.get("use_dora", False),
    )
    for_ours, for_theirs, mask = inputs(reference)
    with torch.no_grad():
        ours = model.network(**for_ours).logits
        assert_close(ours, loaded(**for_theirs).logits, mask)
        merge_lora(model.network)
        assert_close(model.network(**for_ours).logits, ours, mask)
        assert_close(ours, loaded.merge_and_unload()(**for_theirs).logits, mask)


@LAYOUTS
def test_ours_loads_peft(
    tmp_path: Path,
    model_type: str,
    architecture: str,
    theirs: list[str],
    targets: tuple[str, ...],
    variant: dict[str, bool],
) -> None:
    reference = make(tmp_path / "model", model_type, architecture)
    model = language_model(reference)
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=theirs, fan_in_fan_out=model_type == "gpt2", **variant
    )
    adapted = peft.get_peft_model(reference.model, config).eval()
    disturb(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    names = load_adapter(model, tmp_path / "adapter")
    assert {name.rpartition(".")[2] for name in names} >= set(targets)
    for_ours, for_theirs, mask = inputs(reference)
    with torch.no_grad():
        assert_close(model.network(**for_ours).logits, adapted(**for_theirs).logits, mask)


@pytest.mark.parametrize("variant", [{}, *VARIANTS])
def test_gradients_equal_those_of_peft(tmp_path: Path, variant: dict[str, bool]) -> None:
    reference = make(tmp_path / "model", "llama", "LlamaForCausalLM")
    model = language_model(reference)
    targets = ("query", "down")
    add_lora(model.network, LoraConfig(r=3, lora_alpha=5.0, target_modules=targets, **variant))
    disturb(model.network)
    save_adapter(model, tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(
        reference.model, tmp_path / "adapter", is_trainable=True
    ).eval()
    for_ours, for_theirs, mask = inputs(reference)
    kept = mask.bool()
    model.network(**for_ours).logits[kept].square().mean().backward()
    loaded(**for_theirs).logits[kept].square().mean().backward()
    theirs = [p.grad for n, p in loaded.named_parameters() if "lora_" in n]
    ours = [p.grad for one in lora_layers(model.network).values() for p in one.adapter.values()]
    sums = [sorted(float(g.double().square().sum()) for g in grads) for grads in (ours, theirs)]
    assert len(sums[0]) == len(sums[1]) > 0
    assert min(sums[0]) > 0
    assert sums[0] == pytest.approx(sums[1], rel=1e-3)


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
        config.replace('"bias": "none"', '"bias": "all", "use_qalora": true')
    )
    with pytest.raises(ConfigError, match="bias, use_qalora"):
        load_adapter(model, tmp_path / "adapter")


def test_an_adapter_without_its_magnitudes_is_refused(tmp_path: Path) -> None:
    model = language_model(make(tmp_path / "model", "llama", "LlamaForCausalLM"))
    add_lora(model.network, LoraConfig())
    save_adapter(model, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text().replace('"use_dora": false', '"use_dora": true'))
    fresh = language_model(make(tmp_path / "model", "llama", "LlamaForCausalLM"))
    with pytest.raises(CheckpointError, match="has no magnitude vector"):
        load_adapter(fresh, tmp_path)


def test_the_first_pattern_that_matches_sets_alpha(tmp_path: Path) -> None:
    reference = make(tmp_path / "model", "llama", "LlamaForCausalLM")
    patterns = {"layers.1.self_attn.q_proj": 64, "q_proj": 2}
    config = peft.LoraConfig(r=3, target_modules=["q_proj", "v_proj"], alpha_pattern=patterns)
    adapted = peft.get_peft_model(reference.model, config).eval()
    disturb(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    load_adapter(language_model(reference), tmp_path / "adapter")
    ids, mask = batch()
    with torch.no_grad():
        assert_close(reference.network(ids, mask).logits, adapted(ids, mask).logits, mask)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"init_lora_weights": "pissa"}, "'pissa' are for a base whose weights"),
        ({"init_lora_weights": "olora"}, "'olora' are for a base whose weights"),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens are not supported"),
    ],
    ids=str,
)
def test_adapters_that_change_more_than_a_sum_are_refused(
    tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    reference = make(tmp_path / "model", "llama", "LlamaForCausalLM")
    config = peft.LoraConfig(r=3, target_modules=["q_proj"], task_type="CAUSAL_LM", **setting)
    peft.get_peft_model(reference.model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=message):
        load_adapter(language_model(reference), tmp_path / "adapter")
