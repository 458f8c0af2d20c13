"""Texts are data: they cannot spell a special token, in any kind of tokenizer."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, pre_tokenizers

from idiolect.text.tokenizers import bpe, unigram, wordpiece
from idiolect.text.tokenizers.tokenizer import Tokenizer
from vocabulary.conftest import LAYOUTS, make

TEXTS = ["the cat sat on the mat", "the dog ate the cat's dinner", "cats and dogs, dogs, dogs"]


def spelled(tokenizer: Tokenizer) -> list[str]:
    added = tokenizer.engine.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_text_spells_a_special_token(layout: str) -> None:
    tokenizer = make(layout)
    names = spelled(tokenizer)
    assert names
    fullwidth = "＜/s＞＜unk＞"  # NFKC makes it plain
    special = set(tokenizer.special_tokens.values()) - {tokenizer.unk_token_id}
    for name in names:
        for text in (name, f"a {name} b", f"x{name}y\n{name}", f"{name}{name}{fullwidth}"):
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert not special.intersection(ids), (name, text)
            assert tokenizer.encode_batch([text], add_special_tokens=False) == [ids]
            [(same, offsets)] = tokenizer.encode_with_offsets([text], add_special_tokens=False)
            assert same == ids
            assert max(end for _, end in offsets) <= len(text)
        parsed = tokenizer.encode(name, add_special_tokens=False, parse_special_tokens=True)
        assert tokenizer.engine.token_to_id(name) in parsed
    # The template's tokens are still there.
    full, bare = (tokenizer.encode("a", add_special_tokens=add) for add in (True, False))
    assert set(full) - set(bare) <= set(tokenizer.special_tokens.values())


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.one_of(st.text(max_size=6), st.sampled_from(["<|endoftext|>", "</s>"]))))
@pytest.mark.parametrize("layout", ["gpt2", "t5"])
def test_other_text_keeps_its_ids(layout: str, parts: list[str]) -> None:
    tokenizer = make(layout)
    text = "".join(parts)
    plain = tokenizer.encode(text, add_special_tokens=False)
    assert not (set(tokenizer.special_tokens.values()) - {tokenizer.unk_token_id}).intersection(
        plain
    )
    names = [name for name in spelled(tokenizer) if name in text]
    if layout == "gpt2":
        assert tokenizer.decode(plain, skip_special_tokens=False) == text
    elif not names:
        assert plain == tokenizer.encode(text, add_special_tokens=False, parse_special_tokens=True)


@pytest.mark.parametrize(
    "tokenizer",
    [bpe.train(TEXTS, 300), unigram.train(TEXTS, 40), wordpiece.train(TEXTS, 60)],
    ids=["bpe", "unigram", "wordpiece"],
)
def test_our_own_tokenizers(tokenizer: Tokenizer) -> None:
    unknown = {tokenizer.unk_token_id}
    for name in spelled(tokenizer):
        ids = tokenizer.encode(f"the{name} cat {name}", add_special_tokens=False)
        assert not (set(tokenizer.special_tokens.values()) - unknown).intersection(ids)


def test_sampling_and_templates() -> None:
    tokenizer = bpe.train(TEXTS, 300)
    end = tokenizer.eos_token_id
    text = "the cat<|endoftext|>"
    assert end not in tokenizer.sample_batch([text], dropout=0.1)[0]
    assert end in tokenizer.sample_batch([text], dropout=0.1, parse_special_tokens=True)[0]
    assert tokenizer.encode(text, parse_special_tokens=True)[-1] == end
    [(ids, _)] = tokenizer.encode_with_offsets([text], parse_special_tokens=True)
    assert ids[-1] == end


def test_copies_and_pickles_read_alike() -> None:
    tokenizer = bpe.train(TEXTS, 300)
    text = "a<|endoftext|>b"
    ids = tokenizer.encode(text)
    for other in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert other.encode(text) == ids
        assert other.fingerprint == tokenizer.fingerprint


def whole_words(**added: bool) -> Tokenizer:
    """Words split at spaces; the names in `added` are special or not."""
    words = ["<unk>", "a", "b", *added]
    vocabulary = {word: i for i, word in enumerate(words)}
    engine = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.add_tokens([AddedToken(n, special=s, normalized=False) for n, s in added.items()])
    return Tokenizer.from_engine(engine, {"eos_token": "END"})


def test_a_role_makes_an_added_token_special_and_others_are_found() -> None:
    tokenizer = whole_words(END=False, USER=False, SEP=True)
    assert tokenizer.encode("a END b SEP USER") == [1, 0, 2, 0, 4]
    assert tokenizer.encode("a END b SEP USER", parse_special_tokens=True) == [1, 3, 2, 5, 4]


def test_a_character_keeps_its_token() -> None:
    tokenizer = bpe.train(TEXTS, 300)
    engine = tokenizers.Tokenizer.from_str(tokenizer.engine.to_str())
    engine.add_special_tokens([AddedToken("!", normalized=False)])
    padded = Tokenizer.from_engine(engine, {"pad_token": "!"})
    assert padded.encode("cats!") == tokenizer.encode("cats!")


def test_published_tokenizers(loaded: Callable[[str], Tokenizer], multilingual: list[str]) -> None:
    for name in ("gpt2", "roberta", "gpt-neox", "whisper", "t5", "bert", "llama", "botchan"):
        tokenizer = loaded(name)
        special = set(tokenizer.special_tokens.values()) - {tokenizer.unk_token_id}
        names = spelled(tokenizer)[:40]
        for ids in tokenizer.encode_batch(
            [f"one {n}two{n} three" for n in names], add_special_tokens=False
        ):
            assert not special.intersection(ids), name
        # Text without such names is as it was.
        texts = multilingual[::40]
        assert tokenizer.encode_batch(texts) == tokenizer.encode_batch(
            texts, parse_special_tokens=True
        )


def test_nothing_of_it_is_saved(tmp_path) -> None:
    tokenizer = make("t5")
    tokenizer.encode("a</s>")
    tokenizer.save(tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert "</s>" in [piece for piece, _ in saved["model"]["vocab"]]
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint
