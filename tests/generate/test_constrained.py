"""Constraints: texts match, and what cannot be enforced is refused."""

from __future__ import annotations

import json
import re

import pytest
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from idiolect.errors import ConfigError
from idiolect.generate.generator import Generator
from idiolect.generate.logits_processors import WrittenRow
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.tokenizer import Tokenizer

pytest.importorskip("llguidance", reason="needs the extra `constraints`")
from idiolect.generate.constrained import Constraint

TERM = "naproxen"


@pytest.fixture(scope="module")
def generator() -> Generator:
    """A small random model with a byte-level vocabulary and an added domain term."""
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(["take two pills", "take one pill"], trainer)
    engine.add_tokens([AddedToken(TERM, normalized=False)])
    settings = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "eos_token_id": 1,
    }
    tokenizer = Tokenizer(engine, {"bos_token": "<s>", "eos_token": "</s>"})
    return Generator(LanguageModel.new(settings, tokenizer))


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True}], ids=str)
def test_texts_match_the_expression(generator: Generator, options: dict[str, object]) -> None:
    pattern = r"take [1-3] (pills?|naproxen)"
    constraint = Constraint.regex(generator, pattern)
    for found in generator.generate(
        ["one", "take two"], constraint=constraint, max_new_tokens=24, **options
    ):
        assert found.finish_reason == "end"
        assert re.fullmatch(pattern, found.text), found.text


def test_an_added_term_is_a_token_like_any_other(generator: Generator) -> None:
    constraint = Constraint.regex(generator, f"take {TERM}!")
    tokenizer = generator.model.tokenizer
    row = WrittenRow([], tokenizer.encode("take "))
    scores = constraint(torch.zeros(1, len(tokenizer)), [row])[0]
    term = tokenizer.engine.token_to_id(TERM)
    assert scores[term] == 0
    assert float("-inf") == scores[tokenizer.engine.token_to_id("</s>")]
    row.ids.append(term)
    permitted = constraint(torch.zeros(1, len(tokenizer)), [row])[0] == 0
    assert tokenizer.decode(permitted.nonzero()[:, 0].tolist()) == "!"


def test_json_satisfies_its_schema(generator: Generator) -> None:
    schema = {
        "type": "object",
        "properties": {"drug": {"enum": [TERM, "other"]}, "dose": {"enum": [1, 2]}},
        "required": ["drug", "dose"],
        "additionalProperties": False,
    }
    constraint = Constraint.json_schema(generator, schema)
    for found in generator.generate(["a", "b"], constraint=constraint, max_new_tokens=60):
        value = json.loads(found.text)
        assert value["drug"] in (TERM, "other")
        assert value["dose"] in (1, 2)


def test_what_cannot_be_enforced_is_refused(generator: Generator) -> None:
    for schema in ({"not": {"type": "string"}}, {"type": "array", "uniqueItems": True}):
        with pytest.raises(ConfigError, match="the JSON schema cannot be used"):
            Constraint.json_schema(generator, schema)
    with pytest.raises(ConfigError, match="the regular expression cannot be used"):
        Constraint.regex(generator, "(a")
