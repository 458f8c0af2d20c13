"""Virtual tokens: in every way of reading, caching and generating; parity is in tests/parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from idiolect.models.prompt_files import load_prompt, save_prompt
from idiolect.nn.config import TransformerConfig
from idiolect.nn.prompt.attach_prompt import add_prompt, prompt_of, remove_prompt, set_prompt
from idiolect.nn.prompt.prompt_config import PromptConfig, PromptMethod
from idiolect.nn.recurrent import RecurrentConfig, RecurrentNetwork
from idiolect.nn.transformer import Transformer
from idiolect.training.optim import choose_parameters, parameter_groups
from training import models

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12], [13, 14, 15], [16, 17], [18, 19, 20, 21, 22]]
_RECURRENT = RecurrentConfig(
    vocab_size=9, hidden_size=4, inner_size=4, embedding_size=4, num_layers=1
)
EACH = pytest.mark.parametrize("method", ["prompt", "prefix"])


def prompted(method: PromptMethod, kind: str = "llama", **options: Any) -> LanguageModel:
    model = models.model(kind, grown=False)
    config = PromptConfig(method=method, num_virtual_tokens=3, init="random", **options)
    add_prompt(model.network, config, seed=1)
    return model


@EACH
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"prompt_lookup_num_tokens": 2},
        {"do_sample": True, "seed": 4},
        {"penalty_alpha": 0.4, "top_k": 3},
    ],
    ids=str,
)
def test_every_strategy_reads_the_prompt_once(
    method: PromptMethod, options: dict[str, Any]
) -> None:
    """In batches rows join, end and lose their padding; the prefix must stay before each."""
    generator = Generator(prompted(method))
    together = generator.generate(PROMPTS, max_new_tokens=7, batch_size=3, **options)
    network = generator.model.network
    for ids, found in zip(PROMPTS, together, strict=True):
        if not options:
            written = list(ids)
            for _ in found.ids:
                with torch.no_grad():
                    logits = network(torch.tensor([written])).logits[0, -1]
                written.append(int(logits.argmax()))
            assert found.ids == written[len(ids) :]
        elif not options.get("do_sample"):  # a sample's numbers follow from its place
            alone = generator.generate([ids], max_new_tokens=7, **options)[0]
            assert found.ids == alone.ids
    remove_prompt(network)
    without = generator.generate(PROMPTS, max_new_tokens=7, batch_size=3, **options)
    assert [one.ids for one in without] != [one.ids for one in together]


@EACH
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_grids_padding_and_packing_agree(method: PromptMethod, kind: str) -> None:
    network = prompted(method, kind).network
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        packed = network(ids, mask).logits
        alone = [network(row[None, :length]).logits[0] for row, length in zip(ids, (4, 2))]  # noqa: B905
        left = network(ids[1:].flip(1), mask[1:].flip(1)).logits[0, 2:]
    torch.testing.assert_close(packed[0], alone[0])
    torch.testing.assert_close(packed[1, :2], alone[1])
    with torch.no_grad():
        expected = network(ids[1:, :2].flip(1)).logits[0]
        with torch.autocast("cpu", torch.bfloat16):  # the virtual tokens stay in float32
            half = network(ids, mask).logits[0]
    torch.testing.assert_close(left, expected)
    torch.testing.assert_close(half.float(), packed[0], atol=0.05, rtol=0.05)


def test_documents_of_a_row_each_follow_the_prefix() -> None:
    network = prompted("prefix").network
    ids, mask = torch.tensor([[5, 6, 7, 8, 9]]), torch.tensor([[1, 1, 2, 2, 2]])
    with torch.no_grad():
        together = network(ids, mask).logits[0]
        apart = [network(part).logits[0] for part in (ids[:, :2], ids[:, 2:])]
        torch.testing.assert_close(together, torch.cat(apart))
        # With a cache, texts stay in a grid with a mask.
        cached = network(ids, mask, cache=network.new_cache()).logits[0]
    torch.testing.assert_close(cached, together)
    with pytest.raises(InputError, match="several documents in a row"):
        prompted("prompt", "bert").network(ids, mask)


@EACH
def test_only_virtual_tokens_train_and_they_start_as_real_ones(method: PromptMethod) -> None:
    model = models.model("llama", grown=False)
    with pytest.raises(InputError, match="no prompt to train"):
        choose_parameters(model.network, "prompt")
    before = {name: t.clone() for name, t in model.network.state_dict().items()}
    add_prompt(model.network, PromptConfig(method=method, num_virtual_tokens=3, init_ids=(5, 6)))
    with torch.no_grad():
        found = model.network(torch.tensor([[7, 8]])).logits
        remembered = prompt_of(model.network)
        remove_prompt(model.network)
        plain = model.network(torch.tensor([[5, 6, 5, 7, 8]])).logits[:, 3:]
    torch.testing.assert_close(found, plain)
    model.network.prompt = remembered  # type: ignore[assignment]
    assert list(choose_parameters(model.network, "prompt")) == ["prompt.embedding"]
    (group,) = parameter_groups(model.network, {"prompt": 0.5})
    assert (group.part, group.learning_rate) == ("prompt", 0.5)
    for name, tensor in before.items():
        assert torch.equal(model.network.state_dict()[name], tensor)


def test_a_projection_is_saved_as_what_it_computes(tmp_path: Path) -> None:
    model = models.model("llama", grown=False)
    config = PromptConfig(method="prefix", num_virtual_tokens=3, prefix_projection=True)
    virtual = add_prompt(model.network, config)
    assert len(list(virtual.parameters())) == 5
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model.network(ids).logits
        save_prompt(model.network, tmp_path)
        remove_prompt(model.network)
        load_prompt(model.network, tmp_path)
        torch.testing.assert_close(model.network(ids).logits, before)
    again = prompt_of(model.network)
    assert again is not None
    assert len(list(again.parameters())) == 1


@EACH
def test_files_of_a_model_with_a_prompt(tmp_path: Path, method: PromptMethod) -> None:
    model = prompted(method)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = model.network(ids).logits
        model.save(tmp_path / "model")
        assert not any(
            n.startswith("prompt") for n in load_file(tmp_path / "model/model.safetensors")
        )
        torch.testing.assert_close(
            LanguageModel.load(tmp_path / "model").network(ids).logits, expected
        )
        # The prompt alone names its model.
        save_prompt(model.network, tmp_path / "alone", base=str(tmp_path / "model"))
        found = LanguageModel.load(tmp_path / "alone").network(ids).logits
        torch.testing.assert_close(found, expected)
        remove_prompt(model.network)
        model.save(tmp_path / "model")
    assert not (tmp_path / "model/prompt").exists()
    save_prompt(prompted(method).network, tmp_path / "nameless")
    with pytest.raises(CheckpointError, match="does not name the base model"):
        LanguageModel.load(tmp_path / "nameless")


def test_what_cannot_have_a_prompt_says_so(tmp_path: Path) -> None:
    model = prompted("prompt")
    with pytest.raises(ConfigError, match="already has a prompt"):
        add_prompt(model.network, PromptConfig())
    with pytest.raises(ConfigError, match="needs rows of"):
        set_prompt(model.network, torch.zeros(2, 5), prefix=True)
    with pytest.raises(ConfigError, match="only a Transformer"):
        add_prompt(RecurrentNetwork(_RECURRENT), PromptConfig())
    for wrong in (
        {"num_virtual_tokens": 0},
        {"method": "suffix"},
        {"prefix_projection": True},
        {"init": "zero"},
    ):
        with pytest.raises(ConfigError):
            PromptConfig(**wrong)  # type: ignore[arg-type]
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "P_TUNING"}')
    with pytest.raises(ConfigError, match="P_TUNING"):
        load_prompt(model.network, tmp_path)


@EACH
def test_positions_and_prefix_masks_are_refused(method: PromptMethod) -> None:
    """Virtual tokens are none of their columns; without a prompt both have an effect."""
    ids = torch.tensor([PROMPTS[0]])
    network = prompted(method).network
    both = Transformer(
        TransformerConfig(
            vocab_size=40,
            hidden_size=8,
            intermediate_size=8,
            num_attention_heads=2,
            num_encoder_layers=1,
            num_decoder_layers=1,
            max_position_embeddings=16,
        )
    )
    for given in ({"prefix_mask": torch.ones_like(ids)}, {"position_ids": ids}):
        with pytest.raises(InputError, match="do not count virtual tokens"):
            network(ids, **given)
        with pytest.raises(InputError, match="an encoder or a decoder alone"):
            both(ids, **given)


def test_virtual_tokens_take_positions() -> None:
    model = prompted("prefix", "gpt2")
    limit = model.network.config.max_position_embeddings
    with torch.no_grad():
        model.network(torch.ones(1, limit - 3, dtype=torch.long))
        for mask in (None, torch.tensor([[0] + [1] * (limit - 2)])):
            length = limit - 2 if mask is None else limit - 1
            with pytest.raises(InputError, match="positions"):
                model.network(torch.ones(1, length, dtype=torch.long), mask)
