"""Sequences of published pre-tokenizers against the one pattern that replaces them."""

from __future__ import annotations

import json
from functools import lru_cache

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.extend.single_split import single_split
from idiolect.vocabulary.extend.split_syntax import UnsupportedPatternError, parse, render
from idiolect.vocabulary.extend.unusual_text import unusual_texts
from vocabulary.conftest import DOMAIN, GENERAL, LLAMA3

CJK = "[一-龥ࠀ-一가-퟿]+"
DEEPSEEK3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(*, regex: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)


GPT2, BYTES = byte_level(regex=True), byte_level(regex=False)
DIGITS, NUMBERS = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Digits()
SEQUENCES = {
    "smollm2": [DIGITS, GPT2],
    "numbers": [NUMBERS, GPT2],
    "punctuation": [pre_tokenizers.Punctuation(), GPT2],
    "signs-and-digits": [pre_tokenizers.Punctuation("contiguous"), DIGITS, GPT2],
    "line-breaks": [pre_tokenizers.Split("\n", "isolated"), GPT2],
    "numbers-last": [split(LLAMA3), NUMBERS, BYTES],
    "deepseek-coder": [
        split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CJK), DIGITS, BYTES
    ],
    "deepseek-v3": [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3), BYTES],
    "poro": [split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), DIGITS, BYTES],
    "nested": [pre_tokenizers.Sequence([DIGITS]), pre_tokenizers.Sequence([GPT2])],
}  # fmt: skip
FALCON = [
    pre_tokenizers.Punctuation("contiguous"), GPT2, NUMBERS, split("[0-9][0-9][0-9]")
]  # fmt: skip
_made: dict[str, str] = {}


def make(name: str) -> Tokenizer:
    if name not in _made:
        engine = Engine(models.BPE())
        steps = FALCON if name == "falcon" else SEQUENCES[name]
        engine.pre_tokenizer = pre_tokenizers.Sequence(steps)
        engine.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        engine.train_from_iterator([*GENERAL[:600], *(f"{n}" for n in range(3000))], trainer)
        _made[name] = engine.to_str()
    return Tokenizer.from_engine(Engine.from_str(_made[name]))


def combined(name: str) -> pre_tokenizers.PreTokenizer:
    config = json.loads(make(name).engine.to_str())
    rewritten = single_split(config)
    assert rewritten is not None
    assert [step["type"] for step in rewritten["pretokenizers"]] == ["Split", "ByteLevel"]
    return Engine.from_str(json.dumps(config | {"pre_tokenizer": rewritten})).pre_tokenizer


def pieces(cutter: pre_tokenizers.PreTokenizer, text: str) -> list[str]:
    return [piece for piece, _ in cutter.pre_tokenize_str(text)]


@pytest.mark.parametrize("name", SEQUENCES)
def test_one_pattern_cuts_like_the_sequence(name: str) -> None:
    ours, theirs = combined(name), make(name).engine.pre_tokenizer
    for text in [*unusual_texts(), *DOMAIN[:20], *GENERAL[:200]]:
        assert pieces(ours, text) == pieces(theirs, text), text


@settings(max_examples=10, deadline=None)
@given(
    text=st.text(
        alphabet=st.one_of(st.characters(), st.sampled_from(" \n\r'a1.,漢²\u3000")), max_size=30
    )
)
def test_any_text_is_cut_like_the_sequence(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    for name in SEQUENCES:
        ours, theirs = both_once(name)
        assert pieces(ours, text) == pieces(theirs, text), name


@lru_cache
def both_once(name: str) -> tuple[pre_tokenizers.PreTokenizer, pre_tokenizers.PreTokenizer]:
    return combined(name), make(name).engine.pre_tokenizer


def test_new_entries_do_not_change_which_sequence_it_was() -> None:
    """Falcon cuts inside the bytes of `½`; only among the published entries that changes no id."""
    terms = ["½ cup", "C++", "(R)", "漢字", "type 2 diabetes"]
    base = make("falcon")
    larger = extend(base, terms, general=unusual_texts()[::9])
    assert not larger.extension.refused
    assert larger.extension.checks["general"].changed == 0
    again = extend(larger, ["XR-2000B", "¼ cup"])
    assert not again.extension.refused
    text = "½ cup, type 2 diabetes XR-2000B"
    assert base.encode(text) == again.extension.to_base(again.encode(text))
    assert " type 2 diabetes" in {again.decode([id_]) for id_ in again.encode(text)}


@pytest.mark.parametrize("name", ["deepseek-coder", "bloom", "words-and-signs"])
def test_no_term_cuts_what_the_pattern_joins(name: str) -> None:
    """These leave text between their matches, or put signs after a word into one pre-token."""
    steps = {
        "deepseek-coder": SEQUENCES["deepseek-coder"],
        "bloom": [split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), BYTES],
        "words-and-signs": [split(r" ?\p{L}+(?:'s|é?[-/+]+)?| ?\p{N}+|\s+|."), BYTES],
    }[name]
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.Sequence(steps)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "a > 1 <b> 2 >1, x+/ c's y/z c-d. é + 3 > 4), (5 < 6; n é- é/ ts' p> 2"
    engine.train_from_iterator([text] * 50, trainer)
    base = Tokenizer.from_engine(engine)
    larger = extend(base, ["1", "2 >", "b c", "y c", "x é", "> 4", "type 2 c"])
    for other in [text, "type 2 c's b c-d y c/z x é-", "n> 1 > 2 > > 4", *unusual_texts()[::20]]:
        assert larger.extension.to_base(larger.encode(other)) == base.encode(other), other


@pytest.mark.parametrize("name", [*SEQUENCES, "falcon"])
def test_terms_cross_every_border(name: str, tmp_path) -> None:
    """Falcon cuts inside the bytes of a character, which changes no id: merges never cross it."""
    base = make(name)
    terms = ["HbA1c", "XR-2000B", "type 2 diabetes", "metformin"]
    larger = extend(base, terms, domain=DOMAIN, general=unusual_texts()[::3])
    record = larger.extension
    assert not record.refused
    assert len(record.added) == 8
    assert record.checks["domain"].changed == record.checks["general"].changed == 0
    text = "He took metformin: HbA1c fell; type 2 diabetes, XR-2000B 12345 (ò²)\r\n"
    assert {" HbA1c", " type 2 diabetes", " XR-2000B"} <= {
        larger.decode([id_]) for id_ in larger.encode(text)
    }
    assert larger.decode(larger.encode(text)) == text
    for other in [*unusual_texts()[1::15], "aXR-2000B XR-2000BX type 2 diabetesx"]:
        assert record.to_base(larger.encode(other)) == base.encode(other)
    larger.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [text, *DOMAIN[:30], *unusual_texts()[::40]]
    assert [theirs(t)["input_ids"] for t in texts] == larger.encode_batch(texts)
    assert Tokenizer.load(tmp_path).encode_batch(texts) == larger.encode_batch(texts)


@pytest.mark.parametrize(
    "steps",
    [
        [pre_tokenizers.WhitespaceSplit(), GPT2],
        [pre_tokenizers.Split(" ", "removed"), GPT2],
        [split(r"\b"), GPT2],
        [pre_tokenizers.Punctuation("merged_with_previous"), GPT2],
        [DIGITS, pre_tokenizers.ByteLevel(add_prefix_space=True)],
    ],
)
def test_what_cannot_be_rewritten_keeps_its_words(steps: list[pre_tokenizers.PreTokenizer]) -> None:
    engine = make("smollm2").engine
    engine.pre_tokenizer = pre_tokenizers.Sequence(steps)
    base = Tokenizer.from_engine(engine)
    assert single_split(json.loads(engine.to_str())) is None
    larger = extend(base, ["metformin", "type 2 diabetes"], general=GENERAL[:50])
    assert {form.text for form in larger.extension.refused} >= {" type 2 diabetes"}
    assert larger.extension.checks["general"].changed == 0
    terms = audit(base, DOMAIN, min_documents=2).choose(12)
    assert 0 < len(terms.forms) <= 12  # whole words only, and all of them are added
    again = extend(base, terms, domain=DOMAIN)
    assert not again.extension.refused
    check = again.extension.checks["domain"]
    assert terms.saved == check.tokens_before - check.tokens_after


@pytest.mark.parametrize(
    "pattern", [LLAMA3, DEEPSEEK3, r"[^\]a]+|[[:alpha:]]++|\x{41}{2,3}?|(?>a|\z)"]
)
def test_patterns_are_written_as_they_were_read(pattern: str) -> None:
    assert render(parse(pattern)) == pattern.replace(r"(?!\S)", r"(?![^\s])")


@pytest.mark.parametrize("pattern", [r"\b", r"(a", r"a)", r"(?<name>a)", r"\1", "*"])
def test_other_patterns_are_not_rewritten(pattern: str) -> None:
    with pytest.raises(UnsupportedPatternError):
        parse(pattern)
