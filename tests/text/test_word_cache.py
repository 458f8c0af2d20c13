"""Ids looked up word by word are those of the engine for the whole text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, trainers

from idiolect.text import word_cache
from idiolect.text.tokenizers.tiktoken import CL100K, GPT2
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.word_cache import WordCache

TRAINING = [
    "the cat's hat, the dogs don't!!\n\n  def f(x_1):\n\treturn 'x' + 12345\n" * 3,
    "  numpy.linalg.norm(x, ord=None)\r\n    axis : {int, tuple}  \u00e9t\u00e9 na\u00efve\n",
]
PARTS = [
    *"abthexs1234'.,!?_-\u00e9\u0301\u00df\u6f22\U0001f600",
    "the",
    "cat's",
    "don't",
    "!!",
    "\x00",
    "\x1c",
]
SPACES = [
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\u00a0",
    "\u2003",
    "\x85",
    "\u200b",
    " \n ",
    "!\n",
    ".\r\n ",
]
TEXTS = st.lists(st.lists(st.sampled_from(PARTS + SPACES), max_size=25).map("".join), max_size=4)


def byte_level(*before: pre_tokenizers.PreTokenizer, **options: bool) -> tokenizers.Tokenizer:
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [*before, pre_tokenizers.ByteLevel(**{"add_prefix_space": False} | options)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    engine.train_from_iterator(TRAINING, trainer)
    return engine


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def bert() -> tokenizers.Tokenizer:
    engine = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer()
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["[UNK]", "[CLS]"], show_progress=False
    )
    engine.train_from_iterator(TRAINING, trainer)
    return engine


def added() -> tokenizers.Tokenizer:
    engine = byte_level()
    engine.add_tokens([AddedToken("   ", normalized=False), AddedToken("cat's", single_word=True)])
    engine.add_special_tokens(["<|end|>"])
    return engine


ENGINES = {
    "gpt2": Tokenizer(byte_level()),
    "prefix": Tokenizer(byte_level(add_prefix_space=True)),
    "digits": Tokenizer(byte_level(pre_tokenizers.Digits(individual_digits=True))),
    "split": Tokenizer(byte_level(split(r"\p{N}"), split(GPT2), use_regex=False)),
    "cl100k": Tokenizer(byte_level(split(CL100K), use_regex=False)),
    "bert": Tokenizer(bert()),
    "added": Tokenizer(added()),
}


@pytest.mark.parametrize("name", ENGINES)
@given(texts=TEXTS)
def test_ids_are_those_of_the_engine(name: str, texts: list[str]) -> None:
    tokenizer = ENGINES[name]
    cache = WordCache(tokenizer)
    assert cache.is_used
    expected = tokenizer.encode_batch(texts, add_special_tokens=False)
    assert cache.encode(texts) == expected
    assert cache.encode(iter(texts)) == expected, "now that the words are known"


def unknown_pattern() -> tokenizers.Tokenizer:
    return byte_level(split(r"cat \w+|\s+|\S+"), use_regex=False)


def phrase() -> tokenizers.Tokenizer:
    engine = byte_level()
    engine.add_tokens(["the cat"])
    return engine


def takes_space() -> tokenizers.Tokenizer:
    engine = byte_level()
    engine.add_tokens([AddedToken("cat", rstrip=True)])
    return engine


def removes() -> tokenizers.Tokenizer:
    engine = byte_level()
    engine.normalizer = normalizers.StripAccents()
    return engine


def metaspace() -> tokenizers.Tokenizer:
    engine = bert()
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    return engine


@pytest.mark.parametrize("make", [unknown_pattern, phrase, takes_space, removes, metaspace])
def test_where_words_depend_on_others_the_engine_reads_texts(
    make: Callable[[], tokenizers.Tokenizer],
) -> None:
    tokenizer = Tokenizer(make())
    cache = WordCache(tokenizer)
    assert not cache.is_used
    texts = ["the cat sat", " the  cat \u0301 x"]
    assert cache.encode(texts) == tokenizer.encode_batch(texts, add_special_tokens=False)


def test_the_words_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "_LIMIT", 100)
    tokenizer = ENGINES["gpt2"]
    cache = WordCache(tokenizer)
    for text in TRAINING * 2:
        assert cache.encode([text]) == [tokenizer.encode(text, add_special_tokens=False)]
        assert not cache._known, "each text is larger than the limit"
