"""The table of families: it says what the networks can do, and README shows the same one."""

from __future__ import annotations

from pathlib import Path

import pytest

from idiolect.errors import IdiolectError
from idiolect.models.family import Family
from idiolect.models.family_summary import markdown_table, summarize
from idiolect.models.registry import FAMILIES
from idiolect.nn.config import TransformerConfig
from idiolect.nn.transformer import Transformer
from idiolect.training.objectives.causal import Causal
from idiolect.training.objectives.masked import Masked
from idiolect.training.objectives.objective_registry import objectives_for
from models.tiny import WORDS, tiny_tokenizer

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.model_type)
def test_the_objectives_named_are_those_that_take_the_network(family: Family) -> None:
    config = family.config({"vocab_size": len(WORDS)})
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
        tasks=config.tasks,
        **sides,
    )
    network, tokenizer = Transformer(shape), tiny_tokenizer(["[MASK]", *WORDS])
    tokenizer.mask_token_id = 0
    accepted = []
    for name, build in (
        ("causal", lambda: Causal(network)),
        ("masked", lambda: Masked(network, tokenizer)),
    ):
        try:
            build()
        except IdiolectError:
            continue
        accepted.append(name)
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
        shape = family.config({"vocab_size": len(WORDS), "hidden_size": 8})
    network = family.network(shape)
    supported = summarize(family, objectives_for).supports
    assert ("extend" in supported) == bool(network.vocabulary_rows())
    assert ("lora" in supported) == bool(network.blocks)
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
