"""Samples, codes, counts and GloVe's steps against plain references."""

from __future__ import annotations

import heapq
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from idiolect.words.character_ngrams import NgramRows
from idiolect.words.cooccurrences import count_pairs
from idiolect.words.glove import GloveConfig, _State
from idiolect.words.huffman import HuffmanCodes
from idiolect.words.phrases import Phrases
from idiolect.words.word2vec import keep_probabilities
from idiolect.words.word_stream import write_ids


def test_subsampling_keeps_the_words_that_word2vec_keeps() -> None:
    kept = keep_probabilities(np.array([9_000, 900, 100]), 0.01)
    share = np.array([0.9, 0.09, 0.01])
    np.testing.assert_allclose(
        kept, np.minimum(1, (np.sqrt(share / 0.01) + 1) * 0.01 / share), rtol=1e-6
    )


def test_huffman_codes_equal_those_of_a_heap() -> None:
    counts = sorted(np.random.default_rng(0).integers(1, 60, 50).tolist(), reverse=True)
    codes = HuffmanCodes.of(np.array(counts))
    # Of equal counts, inner nodes come before leaves, and the last word before the others.
    heap: list[tuple[int, int, int, list[int]]] = [
        (count, 1, -word, [word]) for word, count in enumerate(counts)
    ]
    heapq.heapify(heap)
    paths = dict.fromkeys(range(len(counts)), "")
    inner = 0
    while len(heap) > 1:
        pair = [heapq.heappop(heap) for _ in range(2)]
        for bit, node in enumerate(pair):
            for word in node[3]:
                paths[word] = str(bit) + paths[word]
        heapq.heappush(heap, (pair[0][0] + pair[1][0], 0, inner, pair[0][3] + pair[1][3]))
        inner += 1
    for word in range(len(counts)):
        place = slice(codes.starts[word], codes.starts[word + 1])
        assert "".join(map(str, codes.bits[place].tolist())) == paths[word]
        assert codes.nodes[place][0] == len(counts) - 2, "every path begins at the root"


def test_pairs_are_counted_exactly_when_the_table_spills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    words = [f"w{i}" for i in range(400)]
    texts = [" ".join(random.choice(words, 300)) for _ in range(60)]
    encoded = write_ids(texts, words, tmp_path)
    monkeypatch.setattr("idiolect.words.cooccurrences._ENTRY", 2**20 // 2**16)
    pairs = count_pairs(encoded, tmp_path, window=4, memory_mb=1)
    wanted: Counter[tuple[int, int]] = Counter()
    for text in texts:
        ids = [int(word[1:]) for word in text.split()]
        for place, word in enumerate(ids):
            for distance in range(1, 5):
                if place >= distance:
                    wanted[word, ids[place - distance]] += 1 / distance
                    wanted[ids[place - distance], word] += 1 / distance
    found = {(int(p["first"]), int(p["second"])): float(p["count"]) for p in pairs}
    assert len(found) == len(pairs) == len(wanted)
    assert max(abs(found[key] - value) for key, value in wanted.items()) < 1e-9
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bounds.npy",
        "ids.i32",
        "pairs.bin",
    ]


def test_glove_steps_equal_the_authors_arithmetic() -> None:
    config = GloveConfig(dimensions=4)
    state = _State(5, config)
    state.rows[0, 2] = 40  # steps that are clipped
    w, b = state.rows.astype(np.float64), state.biases.astype(np.float64)
    g, h = np.ones_like(w), np.ones_like(b)
    pairs = np.array(
        [(0, 1, 2.0), (1, 0, 2.0), (3, 4, 150.0), (0, 1, 2.0), (2, 3, 300.0)],
        [("first", "<i4"), ("second", "<i4"), ("count", "<f8")],
    )
    loss = state.fit(pairs)
    wanted = 0.0
    for i, j, count in pairs.tolist():
        error = w[0, i] @ w[1, j] + b[0, i] + b[1, j] - np.log(count)
        weighted = min(1, count / 100) ** 0.75 * error
        wanted += 0.5 * weighted * error
        first = 0.05 * np.clip(weighted * w[1, j], -100, 100)
        second = 0.05 * np.clip(weighted * w[0, i], -100, 100)
        w[0, i] -= first / np.sqrt(g[0, i])
        w[1, j] -= second / np.sqrt(g[1, j])
        g[0, i] += first**2
        g[1, j] += second**2
        b[0, i] -= weighted / np.sqrt(h[0, i])
        b[1, j] -= weighted / np.sqrt(h[1, j])
        h[0, i] += weighted**2
        h[1, j] += weighted**2
    assert loss == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(state.rows, w, atol=1e-6)
    np.testing.assert_allclose(state.biases, b, atol=1e-6)


def test_phrases_are_joined_by_score_and_again() -> None:
    texts = ["new york city is far", "the york inn is new", "a city of the sea"] * 3
    texts += ["new york city"] * 9
    once = Phrases.learn(texts, min_count=2, threshold=0.5)
    assert once.join(["in", "new", "york", "city"]) == ["in", "new_york", "city"]
    twice = Phrases.learn(texts, passes=2, min_count=2, threshold=0.5)
    assert twice.join(["in", "new", "york", "city"]) == ["in", "new_york_city"]


def test_ngrams_are_hashed_as_in_fasttext() -> None:
    rows = NgramRows(3, 3, 2_000_000)
    # fastText's Dictionary::hash of "<wh": FNV-1a over the bytes.
    value = 2166136261
    for byte in b"<wh":
        value = (value ^ byte) * 16777619 % 2**32
    assert rows.hashes("who")[0] == value % 2_000_000
    # Bytes above 127 are signed in fastText.
    assert NgramRows(1, 1, 2**31).hashes("é") == [
        ((((2166136261 ^ 0xFFFFFFC3) * 16777619 % 2**32) ^ 0xFFFFFFA9) * 16777619 % 2**32) % 2**31
    ]


def test_a_long_document_continues_in_the_next_sentence(tmp_path: Path) -> None:
    encoded = write_ids(["a b " * 1250, "b unknown a"], ["a", "b"], tmp_path)
    assert encoded.bounds.tolist() == [0, 1000, 2000, 2500, 2502]
    assert encoded.read(0, len(encoded.bounds) - 1)[0][-4:].tolist() == [0, 1, 1, 0]
