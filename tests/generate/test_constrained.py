"""Constraints: texts match, and what cannot be enforced is refused."""

from __future__ import annotations

import json
import re

import pytest
import torch

from generate.byte_level import byte_level_generator
from idiolect.errors import ConfigError
from idiolect.generate.generator import Generator
from idiolect.generate.logits_processors import WrittenRow

pytest.importorskip("llguidance", reason="needs the extra `constraints`")
from idiolect.generate.constrained import Constraint

TERM = "naproxen"


@pytest.fixture(scope="module")
def generator() -> Generator:
    """A small random model with a byte-level vocabulary and an added domain term."""
    return byte_level_generator(["take two pills", "take one pill"], [TERM])


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True}], ids=str)
def test_texts_match_the_expression(generator: Generator, options: dict[str, object]) -> None:
    pattern = r"take [1-3] (pills?|naproxen)"
    constraint = Constraint.regex(generator, pattern)
    for found in generator.generate(
        ["one", "take two"], constraint=constraint, max_new_tokens=24, **options
    ):
        assert found.finish_reason == "end"
        assert re.fullmatch(pattern, found.text), found.text


@pytest.mark.parametrize("beams", [1, 2])
def test_a_complete_text_ends_whatever_the_end_tokens_are(generator: Generator, beams: int) -> None:
    constraint = Constraint.regex(generator, "take [1-3] pills")
    other = generator.model.tokenizer.encode("z")
    options = {"constraint": constraint, "max_new_tokens": 40, "eos_token_id": other}
    (found,) = generator.generate(["one"], num_beams=beams, **options)
    assert found.finish_reason == "end"
    assert re.fullmatch("take [1-3] pills", found.text)
    if beams == 1:
        assert "".join(generator.stream("one", **options)) == found.text


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
