"""tiktoken rank files against the `tiktoken` package, built from the same local file."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
import tiktoken
from tiktoken_ext import openai_public

from idiolect.errors import CheckpointError, InputError
from idiolect.text.tokenizers.tiktoken import ENCODINGS, RankEncoding, build, read, read_ranks
from idiolect.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def their_encoding(
    name: str, ranks: dict[bytes, int], monkeypatch: pytest.MonkeyPatch
) -> tiktoken.Encoding:
    """The package's own encoding, with ranks from here instead of from the network."""
    for loader in ("load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"):
        monkeypatch.setattr(openai_public, loader, lambda *_, **__: ranks)
    return tiktoken.Encoding(**openai_public.ENCODING_CONSTRUCTORS[name]())


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("gpt2-ranks", "gpt2"),
        pytest.param("cl100k", "cl100k_base", marks=pytest.mark.slow),
    ],
)
def test_ids(
    file: str,
    name: str,
    published: dict[str, Path],
    multilingual: list[str],
    odd: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = Tokenizer.load(published[file])
    theirs = their_encoding(name, read_ranks(published[file]), monkeypatch)
    # Every code point of the first two planes, next to letters, digits and spaces: the classes
    # of the two regular expression engines must agree.
    every = [
        " ".join(f"a{c}1{c} {c}'{c}" for c in map(chr, range(start, start + 64)))
        for start in (*range(0, 0xD800, 64), *range(0xE000, 0x20000, 64))
    ]
    for texts in (multilingual, odd, every):
        ids = ours.encode_batch(texts)
        assert ids == theirs.encode_ordinary_batch(texts, num_threads=2)
        assert ours.decode_batch(ids) == texts
    for token, id_ in ENCODINGS[name].special.items():
        text = f"a{token}"
        assert ours.encode(text) == theirs.encode_ordinary(text)
        parsed = ours.encode(text, parse_special_tokens=True)
        assert parsed == theirs.encode(text, allowed_special="all")
        assert ours.encode(token, parse_special_tokens=True) == [id_]
    assert len(ours) == theirs.n_vocab


@pytest.mark.parametrize("name", ENCODINGS)
def test_table_of_encodings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_only = {bytes([i]): i for i in range(256)}
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: bytes_only)
    monkeypatch.setattr(
        openai_public, "data_gym_to_mergeable_bpe_ranks", lambda *_, **__: bytes_only
    )
    published = openai_public.ENCODING_CONSTRUCTORS[name]()
    assert ENCODINGS[name].special == published["special_tokens"]
    # The patterns cut alike: make each pre-token one id, and compare.
    texts = ["Don't PANIC: it'S 12345,  the\r\n\n x's \t end ", "naïveTÉ élanVital'll ﷺ 1e-5 ==/\n"]
    theirs = tiktoken.core._tiktoken.CoreBPE(bytes_only, {}, published["pat_str"])
    import regex

    pieces = {
        piece.encode()
        for text in texts
        for piece in regex.findall(published["pat_str"], text)
        if len(piece.encode()) > 1
    }
    ranks = bytes_only | {piece: 256 + i for i, piece in enumerate(sorted(pieces))}
    theirs = tiktoken.core._tiktoken.CoreBPE(ranks, {}, published["pat_str"])
    ours = Tokenizer.from_engine(build(ranks, RankEncoding(ENCODINGS[name].pattern)))
    assert [ours.encode(text) for text in texts] == [theirs.encode_ordinary(t) for t in texts]


def test_merges_are_those_of_the_merge_list(published: dict[str, Path]) -> None:
    import json

    ranks = json.loads(read(published["gpt2-ranks"], "gpt2").to_str())["model"]["merges"]
    merges = json.loads(Tokenizer.load(published["gpt2"]).engine.to_str())["model"]["merges"]
    assert ranks == merges


def test_ranks_published_as_model(published: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(published["gpt2-ranks"].read_bytes())
    with pytest.raises(InputError, match="no encoding named tokenizer is known"):
        Tokenizer.load(path)
    assert len(Tokenizer.load(path, encoding="gpt2")) == 50257
    assert len(Tokenizer.load(tmp_path, encoding="gpt2")) == 50257


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"IQ== 0\nnot base64! 1", "line 2"),
        (b"IQ== 0\nIg==", "line 2"),
        (b"IQ== 0\nIg== x", "line 2"),
        (b"IQ== 0\nIg== 0", "not all different"),
        (b"", "not all different"),
        (b"IQ== 0", "lack 255 of the 256"),
    ],
)
def test_damaged_files(lines: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "gpt2.tiktoken"
    path.write_bytes(lines)
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.load(path)


def test_a_whole_word_is_looked_up_first() -> None:
    ranks = {bytes([i]): i for i in range(256)} | {b"bc": 256, b"abcd": 257}
    tokenizer = Tokenizer.from_engine(build(ranks, RankEncoding(r"\w+| ")))
    assert tokenizer.encode("abcd xabcd") == [257, 32, 120, 97, 256, 100]
    assert base64.b64encode(b"abcd") == b"YWJjZA=="
