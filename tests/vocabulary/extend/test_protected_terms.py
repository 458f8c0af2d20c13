"""The pattern that protects terms, against plain string matching."""

from __future__ import annotations

import json

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from idiolect.vocabulary.extend.protected_terms import can_protect_terms, trie_pattern
from idiolect.vocabulary.extend.single_split import GPT2_PATTERN
from vocabulary.conftest import GENERAL, make

WORDS = st.text(alphabet=st.sampled_from("ab-.]^\\ +é漢\U0001f600|?*#&~"), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(words=st.sets(WORDS, min_size=1, max_size=12), text=WORDS)
def test_a_trie_matches_exactly_its_words(words: set[str], text: str) -> None:
    pattern = trie_pattern(sorted(words))
    for word in words:
        assert regex.fullmatch(pattern, word)
    assert bool(regex.fullmatch(pattern, text)) == (text in words)
    found = regex.match(pattern, text)
    longest = max((w for w in words if text.startswith(w)), key=len, default=None)
    assert (found.group() if found else None) == longest


@settings(max_examples=100, deadline=None)
@given(words=st.sets(WORDS, min_size=1, max_size=12), text=WORDS)
def test_the_engine_matches_the_same_way(words: set[str], text: str) -> None:
    cut = pre_tokenizers.Split(Regex(trie_pattern(sorted(words))), "isolated")
    longest = max((w for w in words if text.startswith(w)), key=len, default=None)
    first = cut.pre_tokenize_str(text)[0][0]
    assert (first == longest) if longest else first not in words


def test_thousands_of_words_make_a_small_pattern() -> None:
    words = [f"{a}{b} {n}" for n in range(40) for a in "abcdefghij" for b in "klmnopqrst"]
    pattern = trie_pattern(words)
    assert len(pattern) < 3 * sum(map(len, words))
    assert all(regex.fullmatch(pattern, word) for word in words)


def test_byte_level_pattern_equals_the_engines() -> None:
    ours = pre_tokenizers.Split(Regex(GPT2_PATTERN), "isolated")
    theirs = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in [*GENERAL, "it's  we'll 'stuff' \n\n\t x'd 12'3 ''s é漢字　x"]:
        cut = [plain.pre_tokenize_str(part)[0][0] for part, _ in ours.pre_tokenize_str(text)]
        assert cut == [part for part, _ in theirs.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("cutter", "possible"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), True),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), False),
        (
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Digits(individual_digits=True),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                ]
            ),
            True,
        ),
        (
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.WhitespaceSplit(),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                ]
            ),
            False,
        ),
        (pre_tokenizers.BertPreTokenizer(), False),
    ],
)
def test_only_known_pre_tokenizers_are_supported(cutter: object, possible: bool) -> None:
    engine = make("gpt2").engine
    engine.pre_tokenizer = cutter
    assert can_protect_terms(json.loads(engine.to_str())) is possible
