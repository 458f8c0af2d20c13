"""Schemas drawn at random: what a random model writes validates, or the schema is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from generate.byte_level import byte_level_generator
from idiolect.errors import ConfigError

pytest.importorskip("llguidance", reason="needs the extra `constraints`")
pytest.importorskip("jsonschema", reason="the judge of schemas")
import jsonschema

from idiolect.generate.constrained import Constraint

SCHEMAS = 500
PATTERNS = ["^[a-c]{1,4}$", "^[0-9]{3}-[0-9]{2}$", "^(yes|no)$", "x{2}"]


def _schema(random: np.random.Generator, depth: int) -> dict[str, Any]:
    """Draw a schema; keywords of a kind are added independently."""

    def chance(share: float) -> bool:
        return bool(random.random() < share)

    def number(low: int, high: int) -> int:
        return int(random.integers(low, high))

    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const"]
    kind = random.choice(kinds + ["array", "object", "anyOf", "object"] * (depth > 0))
    if kind == "enum":
        return {"enum": [["a", 1, None, True, 2.5, "é"][n] for n in random.permutation(6)[:3]]}
    if kind == "const":
        return {"const": ["fixed", 7, None, [1, "b"], {"k": 1}][number(0, 5)]}
    if kind == "anyOf":
        return {"anyOf": [_schema(random, depth - 1) for _ in range(number(1, 4))]}
    schema: dict[str, Any] = {"type": str(kind)}
    if kind == "string":
        if chance(0.4):
            schema["pattern"] = PATTERNS[number(0, len(PATTERNS))]
        if chance(0.4):
            schema["minLength"] = number(0, 4)
        schema["maxLength"] = number(3, 9)
        if chance(0.1):
            schema["format"] = ["date", "time", "email"][number(0, 3)]
    if kind in ("integer", "number"):
        schema["minimum" if chance(0.7) else "exclusiveMinimum"] = number(-20, 5)
        schema["maximum" if chance(0.7) else "exclusiveMaximum"] = number(8, 300)
        if chance(0.2):
            schema["multipleOf"] = number(2, 6)
    if kind == "array":
        schema["items"] = _schema(random, depth - 1)
        schema["minItems"], schema["maxItems"] = number(0, 3), number(2, 4)
        if chance(0.15):
            schema["uniqueItems"] = True
    if kind == "object":
        names = ["name", "dose", "unit", "a b"][: number(1, 5)]
        schema["properties"] = {name: _schema(random, depth - 1) for name in names}
        schema["required"] = [name for name in names if chance(0.6)]
        schema["additionalProperties"] = False
        if chance(0.1):
            schema["minProperties"] = 1
    if chance(0.04):
        schema["not"] = {"type": "array"}
    return schema


@pytest.mark.slow
def test_texts_validate_or_the_schema_is_refused() -> None:
    generator, random = (
        byte_level_generator(["one drug, two doses", '{"name": "x", "dose": 2}']),
        np.random.default_rng(2),
    )
    valid = cut = refused = 0
    for number in range(SCHEMAS):
        schema = _schema(random, 2)
        jsonschema.Draft202012Validator.check_schema(schema)
        try:
            constraint = Constraint.json_schema(generator, schema)
        except ConfigError:
            refused += 1
            continue
        found = generator.generate(
            ["a", "{"],
            constraint=constraint,
            max_new_tokens=200,
            do_sample=True,
            temperature=0.7,
            seed=number,
        )
        for one in found:
            if one.finish_reason == "end":
                jsonschema.Draft202012Validator(schema).validate(json.loads(one.text))
                valid += 1
            else:
                cut += 1
    print(f"{valid} texts valid, {cut} cut, {refused} of {SCHEMAS} schemas refused")
    assert valid > SCHEMAS
    assert cut < 0.2 * valid
    assert 0 < refused < SCHEMAS / 2
