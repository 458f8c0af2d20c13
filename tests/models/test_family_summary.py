"""The table of families: it says what the networks can do, and README shows the same one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from idiolect.errors import IdiolectError
from idiolect.models.family import Family
from idiolect.models.family_summary import markdown_table, summarize
from idiolect.models.registry import FAMILIES
from idiolect.nn.basic import Linear
from idiolect.nn.config import TransformerConfig
from idiolect.nn.transformer import Transformer
from idiolect.training.objectives.causal import Causal
from idiolect.training.objectives.objective_registry import objectives, objectives_for
from models.tiny import WORDS, tiny_tokenizer

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.model_type)
def test_the_objectives_named_are_those_that_take_the_network(family: Family) -> None:
    config = family.config({"vocab_size": len(WORDS)})
    named = {task for one in family.architectures.values() for task in one.tasks}
    heads = ["next_sentence"] if "next_sentence" in named else []
    sides = {
        "num_encoder_layers": config.num_encoder_layers > 0,
        "num_decoder_layers": config.num_decoder_layers > 0,
    }
    shape = TransformerConfig(
        vocab_size=8,
        hidden_size=8,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        tasks=(*config.tasks, *heads),
        pool="first",
        **sides,
    )
    network, tokenizer = Transformer(shape), tiny_tokenizer(["[MASK]", "<extra_id_0>", *WORDS])
    network.carries_state = family.network.carries_state
    tokenizer.mask_token_id = tokenizer.eos_token_id = 0
    accepted = []
    for entry in objectives("pretrain"):
        build = Causal if entry.name == "causal" else partial(entry.load(), tokenizer=tokenizer)
        try:
            build(network)
        except IdiolectError:
            continue
        accepted.append(entry.name)
    assert tuple(accepted) == summarize(family, objectives_for).objectives


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.model_type)
def test_what_is_supported_is_what_networks_do(family: Family) -> None:
    config = family.config({"vocab_size": len(WORDS)})
    sides = (config.num_encoder_layers > 0, config.num_decoder_layers > 0)
    shape = TransformerConfig(
        vocab_size=8,
        hidden_size=8,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        tasks=config.tasks,
        num_encoder_layers=int(sides[0]),
        num_decoder_layers=int(sides[1]),
    )
    if family.make_config is not TransformerConfig:  # small, in the family's own terms
        settings = {"vocab_size": len(WORDS), "hidden_size": 8}
        shape = family.config(settings)
    network = family.network(shape)
    supported = summarize(family, objectives_for).supports
    assert ("extend" in supported) == bool(network.vocabulary_rows())
    linear = any(isinstance(m, Linear) for block in network.blocks for m in block.modules())
    assert ("lora" in supported) == linear
    generates = network.kind != "bidirectional" and network.has_language_head
    assert ("generate" in supported) == generates
    try:
        network.first_layers(1)
    except IdiolectError:
        assert "layers" not in supported
    else:
        assert "layers" in supported


def test_readme_shows_this_table() -> None:
    """Where it fails, paste the output of `idiolect models --markdown`."""
    assert markdown_table(FAMILIES.values(), objectives_for) in README.read_text(encoding="utf-8")
