"""What `transformers.AutoTokenizer` reads in a saved model: the ids of our own tokenizer."""

from __future__ import annotations

import functools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.models import reader_check
from idiolect.models.language_model import LanguageModel
from idiolect.models.reader_check import find_reader_changes
from idiolect.models.registry import FAMILIES
from idiolect.text.tokenizers import tokenizer
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend.extend import METHODS, extend
from idiolect.vocabulary.rows.grow import grow
from parity.reference import _SHAPE, known_settings
from vocabulary.conftest import DOMAIN, GENERAL, LAYOUTS, make

TERMS = ["HbA1c", "metformin", "XR-2000B", "type 2 diabetes", "Metformin"]
TEXTS = [
    *DOMAIN[::9],
    *GENERAL[::60],
    "It's 1234567 items, they'll cost $3.50; we've 2 left — naïve café!",
    "def f(x):\n    return x  # HbA1c\n\n\n\tthree   spaces  \r\n",
    "Привет, мир 2024. 你好，世界。こんにちは 안녕하세요 مرحبا नमस्ते 👩‍👩‍👧 𝕏 ﬁ e\u0301",
    "  leading, trailing  ",
    "a<|endoftext|>b [SEP] c</s> <unk><mask>",
]
CASES = [(layout, method) for layout in LAYOUTS for method in METHODS[make(layout).kind]]


@functools.cache
def tokenizer_of(layout: str, method: str = "") -> Tokenizer:
    base = make(layout)
    return extend(base, TERMS, method, domain=DOMAIN, general=GENERAL) if method else base


@functools.cache
def network_of(model_type: str) -> LanguageModel:
    shape = {k: v for k, v in _SHAPE.items() if not k.endswith("_id")} | {"vocab_size": 1024}
    settings = {"model_type": model_type, **known_settings(model_type, shape)}
    return LanguageModel.new(settings, tokenizer_of("gpt2"))


def saved(model_type: str, own: Tokenizer, directory: Path) -> Any:
    network_of(model_type).with_changes(tokenizer=own).save(directory)
    return transformers.AutoTokenizer.from_pretrained(directory)


def same_ids(theirs: Any, ours: Tokenizer, texts: list[str] = TEXTS) -> bool:
    # A Unigram model finds its control pieces in plain text; only our own engine prevents that.
    plain = [text for text in texts if ours.kind != "unigram" or "</s>" not in text]
    if theirs(plain, split_special_tokens=True)["input_ids"] != ours.encode_batch(plain):
        return False
    parsed = ours.encode_batch(texts, parse_special_tokens=True)
    return bool(theirs(texts)["input_ids"] == parsed)


@pytest.mark.parametrize("layout", ["llama3", "llama2", "t5", "bert"])
@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name != "gpt3"])
def test_every_model_type_reads_any_tokenizer(model_type: str, layout: str, tmp_path: Path) -> None:
    base = tokenizer_of(layout)
    theirs = saved(model_type, base, tmp_path / "base")
    assert len(theirs) == len(base)
    assert same_ids(theirs, base)
    larger = tokenizer_of(layout, METHODS[base.kind][0])
    theirs = saved(model_type, larger, tmp_path / "larger")
    assert len(theirs) == len(larger)
    assert same_ids(theirs, larger)
    assert any(id_ >= len(base) for id_ in theirs("took metformin daily")["input_ids"])


@pytest.mark.parametrize(("layout", "method"), CASES)
def test_every_method_is_read_by_a_class_that_rebuilds(
    layout: str, method: str, tmp_path: Path
) -> None:
    larger = tokenizer_of(layout, method)
    assert same_ids(saved("qwen2", larger, tmp_path), larger)


def test_a_grown_model_is_read(tmp_path: Path) -> None:
    model = network_of("qwen2").with_changes(tokenizer=tokenizer_of("llama3"))
    grow(model, tokenizer_of("llama3", "exact")).save(tmp_path)
    again = LanguageModel.load(tmp_path)
    again.save(tmp_path / "again")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert same_ids(theirs, again.tokenizer)


def test_a_reader_that_differs_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = tokenizer_of("gpt2", "exact")
    saved("qwen2", larger, tmp_path)
    assert not caplog.records
    assert find_reader_changes(tmp_path, larger) == []
    monkeypatch.setattr(tokenizer, "WHOLE_PIPELINE", {})
    monkeypatch.setitem(FAMILIES, "qwen2", replace(FAMILIES["qwen2"], tokenizer_settings={}))
    saved("qwen2", larger, tmp_path)
    assert "transformers reads" in caplog.text
    assert "such as" in caplog.text
    assert any("HbA1c" in text for text in find_reader_changes(tmp_path, larger))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert len(find_reader_changes(tmp_path, larger)) == 1


def test_an_extended_tokenizer_beside_a_config(tmp_path: Path) -> None:
    larger = tokenizer_of("llama3", "exact")
    larger.save(tmp_path)
    for model_type in ("qwen2", "qwen3", "llama", "mistral", "gpt_neox", "phi"):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        assert same_ids(transformers.AutoTokenizer.from_pretrained(tmp_path), larger), model_type


def test_without_transformers_nothing_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(reader_check.importlib, "import_module", missing)
    assert find_reader_changes(tmp_path, tokenizer_of("gpt2", "exact")) == []


def test_inputs_are_those_of_the_network(tmp_path: Path) -> None:
    for model_type, count in (("llama", 2), ("bert", 3), ("t5", 2)):
        theirs = saved(model_type, tokenizer_of("gpt2"), tmp_path / model_type)
        assert len(theirs("a text")) == count, model_type
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "llama")
    batch = reader(["a b", "a longer text"], padding=True, return_tensors="pt")
    assert theirs(**batch).logits.shape[0] == 2


def test_special_tokens_without_an_id_are_not_added_by_the_reader(tmp_path: Path) -> None:
    named = {"pad_token": "[NOWHERE]", "additional_special_tokens": ["<|endoftext|>", "<gone>"]}
    ours = Tokenizer.from_engine(make("gpt2").engine, named)
    theirs = saved("gpt2", ours, tmp_path)
    assert len(theirs) == len(ours)
    assert theirs.pad_token == "<|endoftext|>"


@functools.cache
def reader_of(layout: str) -> Any:
    """A reader of a saved model with the extended tokenizer; its directory is gone."""
    larger = tokenizer_of(layout, METHODS[make(layout).kind][0])
    with tempfile.TemporaryDirectory() as folder:
        return saved("qwen2", larger, Path(folder)), larger


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(
    parts=st.lists(
        st.one_of(
            st.text(max_size=8),
            st.sampled_from([*TERMS, " ", "\n\n", "  ", "'s", "2024", "<|endoftext|>", "[SEP]"]),
        ),
        max_size=10,
    )
)
def test_any_text_is_read_alike(layout: str, parts: list[str]) -> None:
    theirs, ours = reader_of(layout)
    assert same_ids(theirs, ours, ["".join(parts)])
