"""Prompts and prefixes against `peft`: files in both directions, scores, gradients, generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from idiolect.generate.generator import Generator
from idiolect.models.adapter import load_adapter
from idiolect.models.language_model import LanguageModel
from idiolect.models.prompt_files import save_prompt
from idiolect.nn.prompt.attach_prompt import add_prompt, prompt_of, remove_prompt
from idiolect.nn.prompt.prompt_config import PromptConfig, PromptMethod
from models.tiny import tiny_tokenizer
from parity.reference import VOCABULARY, Reference, assert_close, batch, make

COUNT = 4
CASES: list[tuple[str, str, PromptMethod]] = [
    ("llama", "LlamaForCausalLM", "prompt"),
    ("llama", "LlamaForCausalLM", "prefix"),
    ("gpt2", "GPT2LMHeadModel", "prompt"),
    ("gpt2", "GPT2LMHeadModel", "prefix"),
    ("gemma3_text", "Gemma3ForCausalLM", "prompt"),
    ("bert", "BertForMaskedLM", "prompt"),
    ("bert", "BertForMaskedLM", "prefix"),
]
# transformers renames the argument in which `peft` passes a prefix.
pytestmark = pytest.mark.filterwarnings("ignore:.*past_key_values.*:FutureWarning")
EACH = pytest.mark.parametrize(("model_type", "architecture", "method"), CASES)


def prompted(reference: Reference, method: PromptMethod) -> LanguageModel:
    """The reference, loaded here, with virtual tokens that are no tokens."""
    words = ["<unk>", *(f"w{number}" for number in range(1, VOCABULARY))]
    model = LanguageModel(reference.network, tiny_tokenizer(words), reference.settings)
    config = PromptConfig(method=method, num_virtual_tokens=COUNT, init="random")
    add_prompt(model.network, config, seed=3)
    return model


def of_peft(reference: Reference, directory: Path) -> Any:
    return peft.PeftModel.from_pretrained(reference.model, directory).eval()


def logits_of(wrapped: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """The reference's scores of the text's own tokens."""
    logits: Tensor = wrapped(input_ids=ids, attention_mask=mask).logits
    return logits[:, -ids.shape[1] :]


@EACH
def test_peft_loads_ours(
    tmp_path: Path, model_type: str, architecture: str, method: PromptMethod
) -> None:
    reference = make(tmp_path / "model", model_type, architecture)
    model = prompted(reference, method)
    save_prompt(model.network, tmp_path / "prompt")
    ids, mask = batch()
    with torch.no_grad():
        ours = model.network(ids, mask).logits
        assert_close(ours, logits_of(of_peft(reference, tmp_path / "prompt"), ids, mask), mask)
        # One text alone is not packed, and is read without a mask.
        assert_close(model.network(ids[:1]).logits, ours[:1])


@EACH
def test_ours_loads_peft(
    tmp_path: Path, model_type: str, architecture: str, method: PromptMethod
) -> None:
    reference = make(tmp_path / "model", model_type, architecture)
    model = LanguageModel(reference.network, tiny_tokenizer(), reference.settings)
    shape: dict[str, Any] = {"num_virtual_tokens": COUNT, "task_type": "CAUSAL_LM"}
    config = (
        peft.PromptTuningConfig(**shape)
        if method == "prompt"
        # The small network is saved as what it computes.
        else peft.PrefixTuningConfig(**shape, prefix_projection=True, encoder_hidden_size=8)
    )
    if model_type == "bert":
        config.task_type = "FEATURE_EXTRACTION"
    wrapped = peft.get_peft_model(reference.model, config).eval()
    wrapped.save_pretrained(tmp_path / "prompt")
    assert load_adapter(model, tmp_path / "prompt") == []
    ids, mask = batch()
    with torch.no_grad():
        theirs = logits_of(wrapped, ids, mask)
        assert_close(model.network(ids, mask).logits, theirs, mask)


@EACH
def test_gradients_equal_those_of_peft(
    tmp_path: Path, model_type: str, architecture: str, method: PromptMethod
) -> None:
    reference = make(tmp_path / "model", model_type, architecture)
    model = prompted(reference, method)
    shape: dict[str, Any] = {"num_virtual_tokens": COUNT, "task_type": "CAUSAL_LM"}
    if model_type == "bert":
        shape["task_type"] = "FEATURE_EXTRACTION"
    kind = peft.PromptTuningConfig if method == "prompt" else peft.PrefixTuningConfig
    wrapped = peft.get_peft_model(reference.model, kind(**shape)).eval()
    ids, mask = batch()
    kept = mask.bool()
    model.network.requires_grad_(False)
    virtual = prompt_of(model.network)
    assert virtual is not None
    virtual.requires_grad_(True)
    wrapped.prompt_encoder["default"].embedding.weight.data.copy_(virtual.table())
    model.network(ids, mask).logits[kept].square().mean().backward()
    logits_of(wrapped, ids, mask)[kept].square().mean().backward()
    (ours,) = (p.grad for p in virtual.parameters())
    (theirs,) = (p.grad for n, p in wrapped.named_parameters() if "prompt_encoder" in n)
    assert ours is not None
    assert_close(ours, theirs)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_generation_equals_peft_and_forward(tmp_path: Path, method: PromptMethod) -> None:
    reference = make(tmp_path / "model", "llama", "LlamaForCausalLM")
    reference.settings["eos_token_id"] = None
    model = prompted(reference, method)
    save_prompt(model.network, tmp_path / "prompt")
    wrapped = of_peft(reference, tmp_path / "prompt")
    prompts = [[5, 6, 7, 8, 9], [10, 11, 12]]
    generator = Generator(model)
    assert generator.context_length == 64 - COUNT
    found = generator.generate(prompts, max_new_tokens=6, batch_size=2)
    for prompt, generation in zip(prompts, found, strict=True):
        # peft 0.21's own generate disagrees with its forward pass for a prefix.
        assert generation.ids == continued(lambda ids: wrapped(input_ids=ids).logits, prompt)
        whole = torch.tensor([prompt + generation.ids])
        with torch.no_grad():
            logits = model.network(whole).logits[0, len(prompt) - 1 : -1]
        assert generation.ids == logits.argmax(-1).tolist()
    remove_prompt(model.network)
    assert [one.ids for one in found] != [
        continued(lambda ids: model.network(ids).logits, prompt) for prompt in prompts
    ]


@torch.no_grad()
def continued(score: Callable[[Tensor], Tensor], prompt: list[int]) -> list[int]:
    """Six tokens, each the likeliest by a forward pass over everything before it."""
    ids = list(prompt)
    for _ in range(6):
        ids.append(int(score(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_a_prompt_of_real_tokens_is_these_tokens(tmp_path: Path) -> None:
    reference = make(tmp_path / "model", "llama", "LlamaForCausalLM")
    ids, mask = batch()
    first = torch.tensor([[20, 21, 22]])
    with torch.no_grad():
        whole = torch.cat([first.expand(len(ids), 3), ids], dim=1)
        plain = reference.network(whole, torch.cat([mask[:, :3], mask], dim=1)).logits[:, 3:]
        for method in ("prompt", "prefix"):
            config = PromptConfig(method=method, num_virtual_tokens=3, init_ids=(20, 21, 22))
            add_prompt(reference.network, config)
            assert_close(reference.network(ids, mask).logits, plain, mask)
            reference.network.prompt = None
