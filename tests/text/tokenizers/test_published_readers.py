"""Published tokenizers, extended and saved, as `transformers.AutoTokenizer` reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers

from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend.extend import METHODS, extend
from text.conftest import SOURCES

TERMS = ["metformin", "HbA1c", "XR-2000B", "type 2 diabetes", "tocilizumabum", "тоцилизумаб"]
QUICK = ("bert", "llama")
TEXTS = [
    "It's 1234567 items; took metformin 500mg, tocilizumabum; HbA1c fell. The type 2 diabetes!",
    "def f(x):\n    return x\n\n\n\tthree   spaces  тоцилизумаб \r\n(XR-2000B)",
]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in SOURCES]
)
def test_extended_and_saved(
    name: str,
    loaded: Callable[[str], Tokenizer],
    tmp_path: Path,
    multilingual: list[str],
    odd: list[str],
) -> None:
    base = loaded(name)
    texts = TEXTS + multilingual[::40] + odd[::200]
    for method in METHODS[base.kind]:
        larger = extend(base, TERMS, method, general=texts[2:])
        folder = tmp_path / method
        larger.save(folder)
        # Of all supported types, only Qwen2 has a class that rebuilds the pipeline.
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        assert len(theirs) == len(larger)
        assert theirs(texts)["input_ids"] == larger.encode_batch(texts)
        assert any(id_ >= len(base) for text in TEXTS for id_ in larger.encode(text))
