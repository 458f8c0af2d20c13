"""Training BPE, WordPiece and Unigram, from scratch and from an existing vocabulary."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from idiolect.errors import InputError
from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers import bpe, unigram, wordpiece
from idiolect.text.tokenizers.append import append_pieces
from idiolect.text.tokenizers.pair_merging import Words
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.tokenizers.word_counts import count_words

Load = Callable[[str], Tokenizer]
SLOW = ("gpt-neox", "roberta", "whisper", "cl100k", "bpemb")
MODULES = {"bpe": bpe, "wordpiece": wordpiece, "unigram": unigram}


@pytest.fixture(scope="module")
def medical(shared: Path) -> list[str]:
    path = shared / "data" / "sumpubmed" / "abstracts.jsonl.gz"
    return list(islice(Corpus(path, "abstract"), 120))


@pytest.fixture(scope="module")
def general(shared: Path) -> list[str]:
    return list(islice(Corpus(shared / "data" / "openstax" / "text" / "us-history.txt.gz"), 200))


def model(tokenizer: Tokenizer) -> dict[str, Any]:
    part: dict[str, Any] = json.loads(tokenizer.engine.to_str())["model"]
    return part


class TestFromScratch:
    def test_extending_an_alphabet_is_training(self, medical: list[str]) -> None:
        trained = bpe.train(medical, 2500)
        alphabet = bpe.train(medical, 257)
        assert model(alphabet)["merges"] == []
        continued = bpe.extend(alphabet, medical, 2500)
        assert model(continued)["merges"] == model(trained)["merges"]
        assert continued.fingerprint == trained.fingerprint

    def test_the_size_is_reached(self, medical: list[str]) -> None:
        for module in MODULES.values():
            assert len(module.train(medical[:40], 700)) == 700

    def test_little_text_has_fewer_merges(self) -> None:
        assert len(bpe.train(["ab ab"], 1000)) == 259
        assert len(bpe.extend(bpe.train(["ab"], 257), ["ab abc abc"], 1000)) == 260

    def test_special_tokens_and_template(self) -> None:
        texts = ["some words, some more words"]
        piece = wordpiece.train(texts, 60)
        assert (piece.pad_token_id, piece.unk_token_id, piece.cls_token_id, piece.sep_token_id) == (
            0,
            1,
            2,
            3,
        )
        assert piece.encode("words")[0] == 2
        assert piece.encode("words")[-1] == 3
        model_ = unigram.train(texts, 40)
        assert (model_.pad_token_id, model_.eos_token_id, model_.unk_token_id) == (0, 1, 2)
        assert model_.encode("words")[-1] == 1
        assert model_.decode(model_.encode("some more words")) == "some more words"
        assert bpe.train(texts, 300).encode("<|endoftext|>", parse_special_tokens=True) == [0]

    def test_case_is_kept_on_request(self) -> None:
        assert wordpiece.train(["Some Words"], 60).encode("SOME") == wordpiece.train(
            ["Some Words"], 60
        ).encode("some")
        cased = wordpiece.train(["Some Words"], 60, lowercase=False)
        assert cased.encode("Some") != cased.encode("some")

    @pytest.mark.parametrize("name", MODULES)
    def test_too_small(self, name: str) -> None:
        with pytest.raises(InputError, match="too few"):
            MODULES[name].train(["text"], 3)

    @pytest.mark.parametrize("name", MODULES)
    def test_empty_corpus(self, name: str) -> None:
        with pytest.raises(InputError, match="no documents"):
            MODULES[name].train(Corpus.from_texts([]), 500)


class TestExtending:
    @pytest.mark.parametrize(
        "name",
        [
            "gpt2", "llama",
            *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW),
        ],
    )  # fmt: skip
    def test_published_bpe(
        self, name: str, loaded: Load, medical: list[str], general: list[str],
        odd: list[str],
    ) -> None:  # fmt: skip
        base = loaded(name)
        longer = bpe.extend(base, medical, len(base) + 300)
        assert len(longer) == len(base) + 300
        parts = {tuple(merge): i for i, merge in enumerate(model(longer)["merges"])}
        assert list(parts)[: len(model(base)["merges"])] == list(map(tuple, model(base)["merges"]))
        ids = longer.engine.get_vocab(with_added_tokens=True)
        apart = {ids[a + b]: (ids[a], ids[b]) for a, b in parts if ids[a + b] >= len(base)}

        def unmerge(id_: int) -> list[int]:
            return [one for part in apart[id_] for one in unmerge(part)] if id_ in apart else [id_]

        texts = medical + general + odd + ["<|endoftext|>a <s> b</s>  <mask>"]
        before, after = base.encode_batch(texts), longer.encode_batch(texts)
        assert [[i for id_ in ids for i in unmerge(id_)] for ids in after] == before
        assert sum(map(len, after[: len(medical)])) < 0.97 * sum(map(len, before[: len(medical)]))
        assert longer.decode_batch(after) == base.decode_batch(before)

    def test_counts_are_those_of_the_engine(self, loaded: Load, medical: list[str]) -> None:
        base = loaded("gpt2")
        counts = count_words(base.engine, medical)
        cut = base.engine.pre_tokenizer.pre_tokenize_str
        assert sum(counts.values()) == sum(len(cut(text)) for text in medical)
        assert sum(len(word) * count for word, count in counts.items()) == sum(
            map(len, base.encode_batch(medical))
        )
        pieces = [piece for text in medical for piece, _ in cut(text)]
        assert counts[base.engine.token_to_id("Ġthe"),] == pieces.count("Ġthe")

    def test_without_pre_tokens_words_begin_at_spaces(
        self, loaded: Load, medical: list[str]
    ) -> None:
        split = loaded("llama")
        pipeline = json.loads(split.engine.to_str())
        pipeline["pre_tokenizer"] = None
        whole = Tokenizer.from_engine(tokenizers.Tokenizer.from_str(json.dumps(pipeline)))
        assert count_words(whole.engine, medical[:50]) == count_words(split.engine, medical[:50])

    def test_a_new_unigram_piece_replaces_old_pieces(
        self, loaded: Load, medical: list[str], general: list[str], odd: list[str]
    ) -> None:
        for name in ("t5", "botchan"):
            base = loaded(name)
            longer = unigram.extend(base, medical, len(base) + 300)
            assert len(longer) == len(base) + 300
            spelling = {
                id_: base.encode(longer.engine.id_to_token(id_), add_special_tokens=False)
                for id_ in range(len(base), len(longer))
            }
            texts = medical + general + odd
            before, after = base.encode_batch(texts), longer.encode_batch(texts)
            assert sum(map(len, after[: len(medical)])) < 0.95 * sum(
                map(len, before[: len(medical)])
            )
            assert longer.decode_batch(after) == base.decode_batch(before)
            assert all(len(a) <= len(b) for a, b in zip(after, before, strict=True))
            known = base.engine.get_vocab()
            for id_ in spelling:
                assert longer.engine.id_to_token(id_) not in known

    def test_unigram_scores(self) -> None:
        scores = {"a": -1.0, "b": -2.0, "ab": -4.0, "c": -1.5}
        assert unigram.segmentation_score("abc", scores) == pytest.approx(-4.5)
        assert unigram.segmentation_score("abd", scores) == float("-inf")
        base = Tokenizer.from_engine(
            tokenizers.Tokenizer(models.Unigram([("<unk>", -9.0), *scores.items()], unk_id=0))
        )
        longer = unigram.extend(base, ["abcabc", "bc"], 6)
        assert model(longer)["vocab"][-1] == ["bc", pytest.approx(-3.5 + unigram.MARGIN)]
        assert longer.encode("abc") == [1, 5]

    def test_wordpiece(self, loaded: Load, medical: list[str], general: list[str]) -> None:
        base = loaded("bert")
        longer = wordpiece.extend(base, medical, len(base) + 300)
        assert len(longer) == len(base) + 300
        before, after = base.encode_batch(medical), longer.encode_batch(medical)
        assert sum(map(len, after)) < 0.95 * sum(map(len, before))
        assert longer.decode_batch(after) == base.decode_batch(before)
        unchanged = [
            a == b
            for a, b in zip(base.encode_batch(general), longer.encode_batch(general), strict=True)
        ]
        assert sum(unchanged) > 0.8 * len(general)
        assert longer.cls_token_id == base.cls_token_id

    @pytest.mark.parametrize("name", MODULES)
    def test_ids_and_special_tokens_stay(
        self, name: str, medical: list[str], tmp_path: Path
    ) -> None:
        module = MODULES[name]
        base = module.train(medical, 600)
        engine = tokenizers.Tokenizer.from_str(base.engine.to_str())
        engine.add_tokens(["<special>", "HbA1c"])  # with ids after the model's own
        base = Tokenizer.from_engine(engine, {"pad_token": "<special>"})
        assert len(base) == 602
        longer = module.extend(base, medical, 700)
        assert len(longer) == 700
        text = "the <special> HbA1c ."
        assert longer.engine.token_to_id("<special>") == 600 == longer.pad_token_id
        assert {600, 601} <= set(longer.encode(text, parse_special_tokens=True))
        old = base.engine.get_vocab()
        assert {token: id_ for token, id_ in longer.engine.get_vocab().items() if id_ < 602} == old
        longer.save(tmp_path)
        again = Tokenizer.load(tmp_path)
        assert again.encode_batch([*medical, text]) == longer.encode_batch([*medical, text])
        assert again.fingerprint == longer.fingerprint != base.fingerprint
        if name == "bpe":
            further = module.extend(longer, medical, 800)
            assert further.fingerprint == module.extend(base, medical, 800).fingerprint

    @pytest.mark.parametrize("name", MODULES)
    def test_what_cannot_be_trained_further(self, name: str, medical: list[str]) -> None:
        base = MODULES[name].train(medical, 600)
        with pytest.raises(InputError, match="already has 600 ids, and the size is 600"):
            MODULES[name].extend(base, medical, 600)
        for other in MODULES:
            if other != name:
                with pytest.raises(InputError, match="cannot be trained further in this way"):
                    MODULES[other].extend(base, medical, 700)

    def test_progress_is_reported(self, medical: list[str]) -> None:
        reported: list[int] = []
        base = bpe.train(medical, 257)
        bpe.extend(base, medical, 657, progress=reported.append)
        assert reported == [100, 200, 300, 400, 400]

    def test_holes_in_a_unigram_vocabulary_are_refused(self) -> None:
        base = unigram.train(["some words, some more words"], 40)
        with pytest.raises(ValueError, match="zip"):
            append_pieces(base, ["x", "y"], scores=[-1.0])


class TestPairs:
    @given(
        st.dictionaries(
            st.lists(st.integers(0, 3), min_size=1, max_size=8).map(tuple),
            st.integers(1, 5),
            min_size=1,
            max_size=8,
        )
    )
    def test_counts_stay_exact(self, counts: dict[tuple[int, ...], int]) -> None:
        words = Words(counts)
        plain = [(list(word), count) for word, count in counts.items()]
        for into in range(4, 12):
            totals: Counter[tuple[int, int]] = Counter()
            for word, count in plain:
                for pair in pairwise(word):
                    totals[pair] += count
            best = min(totals, key=lambda pair: (-totals[pair], pair), default=None)
            assert words.best() == (None if best is None else (best, totals[best]))
            if best is None:
                return
            words.merge(best, into)
            for word, _ in plain:
                at = 0
                while at + 1 < len(word):
                    if (word[at], word[at + 1]) == best:
                        word[at : at + 2] = [into]
                    at += 1
            uses: Counter[int] = Counter()
            for word, count in plain:
                for id_ in word:
                    uses[id_] += count
            assert +words.uses == uses

    def test_a_refused_pair_is_not_merged(self) -> None:
        words = Words({(1, 2, 3): 5, (3, 1): 4})
        words.refuse((1, 2))
        assert words.best() == ((2, 3), 5)


@given(st.lists(st.text(st.sampled_from("ab c\n"), min_size=1), min_size=1, max_size=6), st.text())
@settings(max_examples=60, deadline=None)
def test_extended_bpe_is_lossless_and_never_longer(texts: list[str], text: str) -> None:
    base = bpe.train(["ab ab abc"], 260)
    longer = bpe.extend(base, texts, 290)
    for one in (*texts, text):
        assert longer.decode(longer.encode(one), skip_special_tokens=False) == one
        assert len(longer.encode(one)) <= len(base.encode(one))


@given(st.randoms())
@settings(max_examples=20, deadline=None)
def test_same_merges_as_the_library(rng: random.Random) -> None:
    words = ["".join(rng.choices("abc", k=rng.randrange(1, 9))) for _ in range(30)]
    texts = [" ".join(rng.choices(words, k=20)) for _ in range(5)]

    def trained(size: int) -> Tokenizer:
        engine = tokenizers.Tokenizer(models.BPE())
        engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        engine.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False))
        return Tokenizer.from_engine(engine)

    theirs = trained(40)
    alphabet = trained(len({*"".join(words)}))
    ours = bpe.extend(alphabet, texts, 40)
    assert ours.kind == "bpe"
    assert model(ours) == model(theirs)


@pytest.mark.slow
def test_two_thousand_merges_on_real_text(loaded: Load, shared: Path) -> None:
    corpus = Corpus(shared / "data" / "sumpubmed" / "abstracts.jsonl.gz", "abstract")
    documents = list(islice(corpus, 6000))
    trained, alphabet = bpe.train(documents, 8000), bpe.train(documents, 257)
    ours = bpe.extend(alphabet, documents, 8000)
    assert model(ours) == model(trained)
    extend: Callable[..., Tokenizer]
    for name, extend in (("gpt2", bpe.extend), ("t5", unigram.extend)):
        base = loaded(name)
        longer = extend(base, documents[:5000], len(base) + 2000)
        before = sum(map(len, base.encode_batch(documents[5000:])))
        after = sum(map(len, longer.encode_batch(documents[5000:])))
        print(f"{name}: {before:,} → {after:,} tokens on held-out text ({after / before - 1:+.1%})")
        assert after < before
