"""`Tokenizer` on the published layouts, against published vectors and `transformers`."""

from __future__ import annotations

import gzip
import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import CheckpointError, InputError, OfflineError
from idiolect.text.tokenizers import bpe, unigram, wordpiece
from idiolect.text.tokenizers.tokenizer import Tokenizer
from text.conftest import SOURCES

Load = Callable[[str], Tokenizer]

DOCUMENTS = ["the cat sat on the mat", "the dog ate the cat's dinner", "cats and dogs, dogs, dogs"]
KINDS = {
    **dict.fromkeys(["gpt2", "roberta", "gpt-neox", "whisper", "cl100k", "gpt2-ranks"], "byte-bpe"),
    **dict.fromkeys(["llama", "bpemb"], "sentencepiece-bpe"),
    **dict.fromkeys(["t5", "botchan", "japanese"], "unigram"),
    "bert": "wordpiece",
}


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return bpe.train(DOCUMENTS, 300)


def load_gguf(name: str, vocabularies: Path, folder: Path) -> Tokenizer:
    """Load a vocabulary of llama.cpp."""
    path = folder / f"{name}.gguf"
    path.write_bytes(gzip.decompress((vocabularies / f"ggml-vocab-{name}.gguf.gz").read_bytes()))
    return Tokenizer.load(path)


@pytest.mark.parametrize("name", ["gpt-2", "llama-spm", "bert-bge", "phi-3", "mpt"])
def test_llama_cpp_vectors(name: str, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "tokenizers" / "llama.cpp-vocabs"
    texts = (folder / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode()
    expected = (folder / f"ggml-vocab-{name}.gguf.out").read_text().split("\n")
    inputs = texts.split("\n__ggml_vocab_test__\n")
    vectors = [[int(id_) for id_ in line.split()] for line in expected[: len(inputs)]]
    assert len(inputs) == 47
    tokenizer = load_gguf(name, folder, tmp_path)
    assert tokenizer.encode_batch(inputs, add_special_tokens=False) == vectors


LATE = ("bpemb", "cl100k", "gpt-neox", "whisper", "gpt2-ranks", "roberta", "japanese")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LATE)) for n in SOURCES]
)
def test_transformers_loads_what_is_saved(
    name: str, loaded: Load, tmp_path: Path, multilingual: list[str], odd: list[str]
) -> None:
    tokenizer = loaded(name)
    assert tokenizer.kind == KINDS[name]
    tokenizer.save(tmp_path)
    texts = multilingual[::16] + odd[::40] + ["<s>a</s> <mask> [MASK] <|endoftext|> <unk>"]
    ids = tokenizer.encode_batch(texts, parse_special_tokens=True)
    again = Tokenizer.load(tmp_path)
    # With a config.json of another type, transformers must not rebuild the tokenizer.
    for model_type in (None, "llama"):
        if model_type:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert theirs(texts)["input_ids"] == ids
        assert theirs.batch_decode(ids) == tokenizer.decode_batch(ids, skip_special_tokens=False)
        assert len(theirs) == len(tokenizer)
        for role in ("pad", "bos", "eos", "unk", "mask", "cls", "sep"):
            own = getattr(tokenizer, f"{role}_token_id")
            if role == "pad" and own is None:  # readers need one
                own = again.pad_token_id
                assert own in set(tokenizer.special_tokens.values())
            assert getattr(theirs, f"{role}_token_id") == own
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode_batch(texts, parse_special_tokens=True) == ids
    assert again.encode_batch(texts) == tokenizer.encode_batch(texts)
    assert sorted(os.listdir(tmp_path)) == [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("name", ["gpt2", "roberta", "gpt-neox", "cl100k", "llama"])
def test_decode_restores_the_text(
    name: str, loaded: Load, multilingual: list[str], odd: list[str]
) -> None:
    tokenizer = loaded(name)
    texts = [*multilingual, *odd]
    if name == "gpt-neox":  # its normalizer composes characters
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    if name == "llama":  # SentencePiece cannot tell its own mark for a space from a space
        texts = [text.replace("▁", "") for text in texts]
    ids = tokenizer.encode_batch(texts, add_special_tokens=False)
    assert tokenizer.decode_batch(ids, skip_special_tokens=False) == texts


def test_special_ids_of_each_kind(loaded: Load) -> None:
    def ids(name: str) -> list[int | None]:
        tokenizer = loaded(name)
        roles = ("pad", "bos", "eos", "unk", "mask", "cls", "sep")
        return [getattr(tokenizer, f"{role}_token_id") for role in roles]

    assert ids("gpt2") == [None, 50256, 50256, None, None, None, None]
    assert ids("roberta") == [1, 0, 2, 3, 50264, 0, 2]
    assert ids("bert") == [0, None, None, 100, 103, 101, 102]
    assert ids("t5") == [0, None, 1, 2, None, None, None]
    assert ids("llama") == [None, 1, 2, 0, None, None, None]


def test_template_of_each_format(loaded: Load) -> None:
    def pieces(name: str) -> list[str]:
        tokenizer = loaded(name)
        return [tokenizer.engine.id_to_token(id_) for id_ in tokenizer.encode("Hello world")]

    assert pieces("bert") == ["[CLS]", "Hello", "world", "[SEP]"]
    assert pieces("roberta") == ["<s>", "Hello", "Ġworld", "</s>"]
    assert pieces("t5") == ["▁Hello", "▁world", "</s>"]
    assert pieces("gpt2") == ["Hello", "Ġworld"]
    assert pieces("llama") == ["▁Hello", "▁world"]


def test_settings_name_the_template_of_a_sentencepiece_model(
    published: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(published["llama"].read_bytes())
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    assert Tokenizer.load(tmp_path).encode("Hello") == [1, 15043]
    config.write_text(json.dumps({"add_bos_token": False, "add_eos_token": True}))
    assert Tokenizer.load(tmp_path).encode("Hello") == [15043, 2]


def test_settings_name_the_template_of_a_merge_list(
    published: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((published["gpt2"] / name).read_bytes())
    config = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "add_bos_token": True}
    config["bos_token"] = {"content": "<|endoftext|>", "lstrip": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.load(tmp_path).encode("Hello") == [50256, 18435]
    # Any token that the settings call special is found in a template.
    config |= {"add_bos_token": False, "pad_token": "Ġhello"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("Ġhello", parse_special_tokens=True) == [23748]
    assert 23748 not in tokenizer.encode("Ġhello")


def test_settings_of_a_wordpiece_vocabulary(published: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes((published["bert"] / "vocab.txt").read_bytes())
    cased = Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    lower = Tokenizer.load(tmp_path)
    assert cased.encode("Élan") != cased.encode("elan")
    assert lower.encode("Élan") == lower.encode("elan") == cased.encode("elan")


def test_settings_are_kept(small: Tokenizer, tmp_path: Path) -> None:
    engine = small.engine
    tokenizer = Tokenizer.from_engine(engine, {"model_max_length": 77, "chat_template": "{{ x }}"})
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path).settings
    assert (again["model_max_length"], again["chat_template"]) == (77, "{{ x }}")
    # Newer models have their template in a file of its own, which transformers prefers.
    (tmp_path / "chat_template.jinja").write_text("{{ y }}\n")
    again = Tokenizer.load(tmp_path).settings
    assert again["chat_template"] == "{{ y }}\n"
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.chat_template == again["chat_template"]


def test_padding_truncation_and_dropout_are_removed(small: Tokenizer, tmp_path: Path) -> None:
    pipeline = json.loads(small.engine.to_str())
    pipeline["model"]["dropout"] = 0.9
    pipeline["truncation"] = {
        "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    pipeline["padding"] = {
        "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(pipeline))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode_batch(DOCUMENTS) == small.encode_batch(DOCUMENTS)
    assert tokenizer.settings["model_max_length"] == 2
    assert tokenizer.fingerprint == small.fingerprint


def test_fingerprint_covers_everything_that_determines_ids(small: Tokenizer) -> None:
    def changed(path: str, value: Any) -> str:
        pipeline = json.loads(small.engine.to_str())
        target, keys = pipeline, path.split(".")
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value
        engine = type(small.engine).from_str(json.dumps(pipeline))
        return Tokenizer.from_engine(engine).fingerprint

    merges = json.loads(small.engine.to_str())["model"]["merges"]
    fingerprints = {
        small.fingerprint,
        changed("normalizer", {"type": "NFC"}),
        changed("pre_tokenizer.add_prefix_space", True),
        changed("post_processor.trim_offsets", True),
        changed("model.merges", merges[::-1]),
        changed("model.ignore_merges", True),
        changed("added_tokens", []),
    }
    assert len(fingerprints) == 7
    assert changed("truncation", None) == small.fingerprint


def test_length_counts_unused_ids(small: Tokenizer) -> None:
    pipeline = json.loads(small.engine.to_str())
    pipeline["model"]["vocab"]["<later>"] = 5000
    engine = type(small.engine).from_str(json.dumps(pipeline))
    assert len(Tokenizer.from_engine(engine)) == 5001


def test_offsets_point_into_the_text(loaded: Load) -> None:
    text = "Der Führer 日本 🦙 fährt"
    for name in ("gpt2", "bert", "t5", "llama", "roberta"):
        tokenizer = loaded(name)
        ((ids, offsets),) = tokenizer.encode_with_offsets([text])
        assert ids == tokenizer.encode(text)
        covered = "".join(text[start:end] for start, end in dict.fromkeys(offsets))
        for word in text.split():
            assert word in covered


def test_batches_of_any_size(small: Tokenizer) -> None:
    texts = [f"the cat {i}" for i in range(2500)]
    assert small.encode_batch(iter(texts)) == [small.encode(text) for text in texts]
    assert small.encode_batch([]) == []
    with pytest.raises(InputError, match="not one text"):
        small.encode_batch("the cat")


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_byte_level_is_lossless(small: Tokenizer, text: str) -> None:
    ids = small.encode(text)
    assert small.decode(ids, skip_special_tokens=False) == text
    assert all(0 <= id_ < len(small) for id_ in ids)


def test_added_tokens_are_not_decoded_as_bytes(small: Tokenizer) -> None:
    engine = type(small.engine).from_str(small.engine.to_str())
    engine.add_tokens(["naïve", "日本"])
    engine.add_special_tokens(["«end»"])
    tokenizer = Tokenizer.from_engine(engine)
    text = "the naïvenaïve cat 日本«end»é"
    ids = tokenizer.encode(text, parse_special_tokens=True)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert tokenizer.decode(ids) == text.replace("«end»", "")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_ids_outside_the_vocabulary(small: Tokenizer) -> None:
    for wrong in (-1, len(small), 10**12):
        with pytest.raises(InputError, match=f"id {wrong} is outside"):
            small.decode([5, wrong])


class TestBadInput:
    def test_no_such_path(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            Tokenizer.load(tmp_path / "none here")

    def test_unreachable_hub(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(OfflineError, match="no-such/repository"):
            Tokenizer.load("no-such/repository")

    def test_empty_directory(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no tokenizer in"):
            Tokenizer.load(tmp_path)

    def test_two_models_in_the_directory(self, tmp_path: Path) -> None:
        for name in ("a.model", "b.model"):
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(InputError, match=r"several tokenizers .*a\.model, b\.model"):
            Tokenizer.load(tmp_path)

    def test_unknown_type_of_file(self, tmp_path: Path) -> None:
        path = tmp_path / "tokenizer.bin"
        path.write_bytes(b"x")
        with pytest.raises(InputError, match="not a known tokenizer file"):
            Tokenizer.load(path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"model": ', "damaged"),
            (b"[1, 2]", "not an object|damaged"),
            (b"{}", "damaged"),
            (b'{"model": {"type": "Magic"}}', "unknown tokenizer algorithm 'Magic'"),
            (b'{"model": 3}', "damaged"),
            (b"\xff\xfe{}", "not UTF-8: byte 0 is 0xff"),
            (b"[" * 100_000, "damaged"),
        ],
    )
    def test_damaged_pipeline(self, content: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "damaged"),
            ("model.merges", [["a", "zz"]], "damaged: Token `zz` out of vocabulary"),
            ("model.vocab.a", -1, "damaged"),
            (
                "post_processor",
                {
                    "type": "TemplateProcessing", "pair": [], "special_tokens": {},
                    "single": [{"SpecialToken": {"id": "X", "type_id": 0}}],
                },
                "damaged",
            ),
            (
                "added_tokens",
                [{"id": 777, "content": "<x>", "special": True, "single_word": False,
                  "lstrip": False, "rstrip": False, "normalized": False}],
                "<x> has id 777, the engine gives",
            ),
        ],
    )  # fmt: skip
    def test_inconsistent_parts(
        self, path: str, value: Any, message: str, small: Tokenizer, tmp_path: Path
    ) -> None:
        pipeline = json.loads(small.engine.to_str())
        target, keys = pipeline, path.split(".")
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value
        (tmp_path / "tokenizer.json").write_text(json.dumps(pipeline))
        with pytest.raises(CheckpointError, match=message):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize(
        ("vocab", "merges", "message"),
        [
            ('{"a": 0, "b": 1}', "a b", "lacks"),
            ('{"a": 0, "b": 1, "ab": 2}', "#version: 0.2\na b c", "not a pair"),
            ('{"a": "x"}', "", "damaged|not byte-level"),
            ('{"a</w>": 0, "b": 1}', "", "not byte-level"),
        ],
    )
    def test_damaged_merges(self, vocab: str, merges: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "vocab.json").write_text(vocab)
        (tmp_path / "merges.txt").write_text(merges)
        with pytest.raises(CheckpointError, match=message):
            Tokenizer.load(tmp_path)

    def test_vocabulary_without_merges(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.json").write_text("{}")
        with pytest.raises(CheckpointError, match=r"merges\.txt"):
            Tokenizer.load(tmp_path)

    def test_wordpiece_without_unknown_token(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.txt").write_text("a\nb\n")
        with pytest.raises(CheckpointError, match=r"no \[UNK\]"):
            Tokenizer.load(tmp_path)

    def test_settings_that_contradict_the_vocabulary(
        self, published: dict[str, Path], tmp_path: Path
    ) -> None:
        # As XLM-R publishes its model: the same pieces, all ids moved on by one.
        (tmp_path / "sentencepiece.bpe.model").write_bytes(published["botchan"].read_bytes())
        added = {"0": {"content": "<s>"}, "1": {"content": "<pad>"}}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
        with pytest.raises(CheckpointError, match="<s> is id 0 in the settings, 1 in"):
            Tokenizer.load(tmp_path)

    def test_failed_save_leaves_the_old_files(
        self, small: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small.save(tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def fail(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="disk full"):
            bpe.train(["other text"], 260).save(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class TestSampling:
    def test_strength_zero_is_the_usual_encoding(self, small: Tokenizer) -> None:
        assert small.sample_batch(DOCUMENTS, dropout=0.0) == small.encode_batch(DOCUMENTS)

    def test_dropping_every_merge_leaves_bytes(self, small: Tokenizer) -> None:
        (ids,) = small.sample_batch(["the cats"], dropout=1.0)
        assert [small.engine.id_to_token(id_) for id_ in ids] == list("theĠcats")

    def test_same_seed_same_segmentations(self, small: Tokenizer) -> None:
        drawn = [small.sample_batch(DOCUMENTS * 5, dropout=0.3, seed=seed) for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert small.decode_batch(drawn[2]) == DOCUMENTS * 5

    @pytest.mark.parametrize(
        ("name", "strength"),
        [("gpt2", {"dropout": 0.2}), ("roberta", {"dropout": 0.2}), ("llama", {"dropout": 0.2}),
         ("t5", {"alpha": 0.2}), ("botchan", {"alpha": 0.2})],
    )  # fmt: skip
    def test_same_text_other_pieces(
        self, name: str, strength: dict[str, float], loaded: Load
    ) -> None:
        tokenizer = loaded(name)
        texts = ["A reproducible <s> immunohistochemistry 🦙 日本."] * 20
        drawn = tokenizer.sample_batch(texts, **strength)
        assert len({tuple(ids) for ids in drawn}) > 10
        assert tokenizer.decode_batch(drawn) == tokenizer.decode_batch(
            tokenizer.encode_batch(texts)
        )

    def test_unigram_samples_by_probability(self) -> None:
        import tokenizers

        vocab = [("<unk>", -9.0), ("a", -1.0), ("b", -2.0), ("ab", -2.5), ("ba", -3.0)]
        engine = tokenizers.Tokenizer(tokenizers.models.Unigram(vocab, unk_id=0))
        tokenizer = Tokenizer.from_engine(engine)
        alpha, draws = 0.5, 20_000
        weights = {(1, 2, 1): -4.0, (3, 1): -3.5, (1, 4): -4.0}
        total = sum(2.718281828 ** (alpha * score) for score in weights.values())
        drawn = tokenizer.sample_batch(["aba"] * draws, alpha=alpha)
        for ids, score in weights.items():
            share = sum(tuple(one) == ids for one in drawn) / draws
            assert share == pytest.approx(2.718281828 ** (alpha * score) / total, abs=0.015)

    def test_dropout_drops_by_probability(self) -> None:
        import tokenizers

        vocab = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}
        model = tokenizers.models.BPE(vocab, [("a", "b"), ("b", "c")])
        tokenizer = Tokenizer.from_engine(tokenizers.Tokenizer(model))
        draws = tokenizer.sample_batch(["abc"] * 20_000, dropout=0.4)
        # First choice ab with 0.6; if it is passed over, bc with 0.6; else neither.
        for ids, probability in (([3, 2], 0.6), ([0, 4], 0.24), ([0, 1, 2], 0.16)):
            assert draws.count(ids) / 20_000 == pytest.approx(probability, abs=0.015)

    def test_strength_must_fit_the_algorithm(self, small: Tokenizer) -> None:
        for strength in ({}, {"alpha": 0.1}, {"alpha": 0.1, "dropout": 0.1}, {"dropout": -1.0}):
            with pytest.raises(InputError, match="needs dropout="):
                small.sample_batch(DOCUMENTS, **strength)
        with pytest.raises(InputError, match="probability"):
            small.sample_batch(DOCUMENTS, dropout=1.5)
        with pytest.raises(InputError, match="needs alpha="):
            unigram.train(DOCUMENTS, 60).sample_batch(DOCUMENTS, dropout=0.1)
        with pytest.raises(InputError, match="wordpiece has no subword sampling"):
            wordpiece.train(DOCUMENTS, 60).sample_batch(DOCUMENTS, dropout=0.1)
