"""Merges reconstructed from ranks, against a plain implementation of ranked merging."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from idiolect.text.tokenizers.byte_level import to_bytes, to_characters
from idiolect.text.tokenizers.merges import merges_from_ranks


def merge_by_rank(text: str, ranks: dict[str, int]) -> list[str]:
    """Merge the best-ranked neighbours, the leftmost first, until none are a piece."""
    parts = list(text)
    while True:
        pairs = [(ranks.get(a + b, 10**9), i) for i, (a, b) in enumerate(pairwise(parts))]
        rank, at = min(pairs, default=(10**9, 0))
        if rank == 10**9:
            return parts
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@given(st.lists(st.text("abc", min_size=2, max_size=5), unique=True), st.randoms())
def test_any_ranked_vocabulary(pieces: list[str], rng: random.Random) -> None:
    rng.shuffle(pieces)
    ranks = {piece: rank for rank, piece in enumerate([*"abc", *pieces])}
    # A piece that ranks before one it is made from is possible, and must behave as ranked.
    engine = Tokenizer(models.BPE(vocab=ranks, merges=merges_from_ranks(ranks)))
    for _ in range(20):
        text = "".join(rng.choices("abc", k=rng.randrange(1, 12)))
        assert engine.encode(text).tokens == merge_by_rank(text, ranks)


def test_runs_of_equal_rank_grow_from_the_left() -> None:
    ranks = {"a": 0.0, **{"a" * n: 1.0 for n in range(2, 6)}}
    vocab = {piece: i for i, piece in enumerate(ranks)}
    engine = Tokenizer(models.BPE(vocab=vocab, merges=merges_from_ranks(ranks)))
    for n in range(1, 40):
        assert [len(token) for token in engine.encode("a" * n).tokens] == [5] * (n // 5) + (
            [n % 5] if n % 5 else []
        )


def test_unreachable_pieces_have_no_merge() -> None:
    assert merges_from_ranks({"a": 0, "b": 1, "c": 2, "abc": 3}) == []
    assert merges_from_ranks({b"a": 0, b"b": 1, b"ab": 2}) == [(b"a", b"b")]


@given(st.binary())
def test_byte_level_alphabet(data: bytes) -> None:
    assert to_bytes(to_characters(data)) == data


def test_byte_level_alphabet_is_the_engines() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(to_characters(bytes(range(256)))) == set(ByteLevel.alphabet())
    text = "naïve 日本\n"
    ((engine, _),) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert to_characters(text.encode()) == engine
