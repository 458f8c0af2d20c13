"""What sentence-transformers computes from a saved encoder: our own vectors, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from encoding.models import tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import Pair
from idiolect.encoding.tune import tune
from idiolect.errors import ConfigError
from idiolect.models.language_model import LanguageModel
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.text.tokenizers import bpe
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.extend.extend import extend
from parity.reference import _SHAPE
from vocabulary.conftest import DOMAIN, make

TEXTS = [
    "HbA1c fell.",
    "A much longer text about type 2 diabetes, metformin, and the XR-2000B meter, on two\nlines.",
    "one",
    "a document that ends <|endoftext|> here </s> [SEP] <unk> and goes on",
]
KINDS = {
    "bert": "bert",
    "roberta": "gpt2",
    "xlm-roberta": "albert",
    "xlm": "bert",
    "openai-gpt": "gpt2",
    "gpt2": "gpt2",
    "xglm": "albert",
    "llama": "llama2",
    "mistral": "llama3",
    "qwen2": "neox",
    "qwen3": "llama3",
    "t5": "t5",
    "mt5": "t5",
}


def language_model(model_type: str, layout: str) -> LanguageModel:
    shape = {k: v for k, v in _SHAPE.items() if not k.endswith("_id")}
    shape |= {"vocab_size": 1024, "max_position_embeddings": 128, "n_positions": 128}
    model = LanguageModel.new({"model_type": model_type, **shape}, make(layout))
    for parameter in model.network.parameters():  # else all texts are alike
        if parameter.dim() > 1:
            parameter.data.mul_(8)
    return model


def theirs(directory: Path, **options: Any) -> Any:
    library = pytest.importorskip("sentence_transformers", reason="it is not installed")
    return library.SentenceTransformer(str(directory), device="cpu", **options)


def assert_same(ours: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(ours, other, atol=2e-5 * max(1.0, np.abs(ours).max()))


@pytest.mark.parametrize(("model_type", "layout"), KINDS.items())
def test_every_family_in_one_batch(model_type: str, layout: str, tmp_path: Path) -> None:
    ours = Encoder(language_model(model_type, layout), "mean")
    ours.save(tmp_path)
    # A Unigram model finds its control pieces in plain text; only our own engine prevents that.
    unigram = ours.model.tokenizer.kind == "unigram"
    texts = TEXTS[:3] if unigram else TEXTS
    vectors = ours.encode(texts)
    assert np.ptp(vectors, axis=0).max() > 1e-3
    assert_same(vectors, theirs(tmp_path).encode(texts, batch_size=len(texts)))


@pytest.mark.parametrize("pooling", ["mean", "first", "last", "weighted"])
@pytest.mark.parametrize(("model_type", "layout"), [("gpt2", "gpt2"), ("bert", "bert")])
def test_every_pooling_and_module(
    model_type: str, layout: str, pooling: Any, tmp_path: Path
) -> None:
    model = language_model(model_type, layout)
    ours = Encoder(model, pooling, normalize=False, prompts={"query": "find: "}, max_length=20)
    ours.save(tmp_path / "plain")
    assert_same(ours.encode(TEXTS), theirs(tmp_path / "plain").encode(TEXTS))
    ours = ours.with_changes(normalize=True, trained_dimensions=(8,))
    ours.project(DOMAIN, whiten=True)
    ours.save(tmp_path / "dense")
    other = theirs(tmp_path / "dense", truncate_dim=8)
    queries = ours.encode(TEXTS, prompt_name="query", dimensions=8)
    assert_same(queries, other.encode_query(TEXTS, normalize_embeddings=True))


@pytest.mark.parametrize("layout", ["bytes", "words"])
def test_a_tokenizer_without_special_tokens(layout: str, tmp_path: Path) -> None:
    if layout == "bytes":
        own = bpe.train(DOMAIN, 300, special_tokens=())
    else:
        words = {word: i for i, word in enumerate(["a", "<unk>", *TEXTS[1].split()])}
        engine = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
        engine.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        own = Tokenizer.from_engine(engine)
    model = language_model("gpt2", "gpt2").with_changes(tokenizer=own)
    ours = Encoder(model)
    ours.save(tmp_path)
    texts = [*TEXTS, "!!", own.engine.id_to_token(0) * 3 + " !"]
    assert_same(ours.encode(texts), theirs(tmp_path).encode(texts))
    again = Encoder.load(tmp_path)
    assert_same(again.encode(texts), ours.encode(texts))
    again.save(tmp_path)
    assert_same(ours.encode(texts), theirs(tmp_path).encode(texts))


@pytest.mark.parametrize("model_type", ["bart", "mbart"])
def test_the_encoder_of_a_pair_is_refused(model_type: str, tmp_path: Path) -> None:
    ours = Encoder(language_model(model_type, "gpt2"))
    ours.save(tmp_path)
    assert_same(Encoder.load(tmp_path).encode(TEXTS), ours.encode(TEXTS))
    with pytest.raises((TypeError, ValueError)):
        theirs(tmp_path)


def test_left_padding_of_a_published_tokenizer_is_not_kept(tmp_path: Path) -> None:
    model = language_model("gpt2", "gpt2")
    model.tokenizer.settings |= {"padding_side": "left", "truncation_side": "left"}
    ours = Encoder(model, "weighted", max_length=12)
    ours.save(tmp_path)
    assert_same(ours.encode(TEXTS), theirs(tmp_path).encode(TEXTS))


def test_the_shipped_base_tuned_and_plain(tmp_path: Path) -> None:
    model = LanguageModel.load("idiolect-base")
    model.save(tmp_path / "base")
    batch = theirs(tmp_path / "base").encode(TEXTS[:3], normalize_embeddings=True)
    # sentence-transformers takes the last token of a causal model that is no encoder.
    assert_same(Encoder(model, "last").encode(TEXTS[:3]), batch)
    larger = extend(model, ["HbA1c", "metformin"], domain=DOMAIN)
    tune(
        Encoder(larger, "mean"),
        [Pair("a query", DOMAIN[0]), Pair("another", DOMAIN[1])] * 4,
        output_dir=tmp_path / "run",
        config=TrainingConfig(batch_size=4),
    )
    ours = Encoder.load(tmp_path / "run" / "model")
    assert_same(ours.encode(TEXTS), theirs(tmp_path / "run" / "model").encode(TEXTS))


def test_prompts_with_special_tokens(tmp_path: Path) -> None:
    model = language_model("llama", "gpt2")
    ours = Encoder(model, "last", prompts={"query": "<|endoftext|>find: ", "document": ""})
    end = model.tokenizer.eos_token_id
    rows = ours.reader.read(["a <|endoftext|> b"], "query", _counts())
    assert rows[0][0] == end
    assert rows[0].count(end) == 1
    ours.save(tmp_path)
    texts = [text for text in TEXTS if "<|" not in text]
    assert_same(ours.encode(texts, prompt_name="query"), theirs(tmp_path).encode_query(texts))


def _counts() -> Any:
    from idiolect.encoding.text_reader import EncodingCounts

    return EncodingCounts()


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_older_name_of_bidirectional_is_understood(tmp_path: Path) -> None:
    ours = tiny_encoder("llama", bidirectional=True)
    ours.save(tmp_path)
    path = tmp_path / "1_Pooling" / "config.json"
    settings = json.loads(path.read_text())
    del settings["bidirectional"]
    path.write_text(json.dumps(settings | {"both_ways": True}))
    again = Encoder.load(tmp_path)
    assert again.bidirectional
    np.testing.assert_array_equal(again.encode(["a b c"]), ours.encode(["a b c"]))


def test_an_unknown_setting_of_the_pooling_is_refused(tmp_path: Path) -> None:
    tiny_encoder().save(tmp_path)
    _edit(tmp_path / "1_Pooling" / "config.json", attention_span=3)
    with pytest.raises(ConfigError, match="settings attention_span are not supported"):
        Encoder.load(tmp_path)


@pytest.mark.parametrize("layout", ["llama2", "gpt2", "bert"])
def test_a_ranker_reads_a_padded_batch_alike(layout: str, tmp_path: Path) -> None:
    """The padding of the tokenizer is the one by which the model finds the last token."""
    transformers = pytest.importorskip("transformers", reason="it is not installed")
    ours = CrossEncoder.of(language_model("llama", layout))
    ours.save(tmp_path)
    pairs = [("HbA1c", text) for text in TEXTS]
    rows = [ids for ids, _ in ours._read(pairs)]
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert network.config.pad_token_id == reader.pad_token_id
    batch = reader.pad({"input_ids": rows}, return_tensors="pt")
    assert_same(ours.score(pairs), network(**batch).logits.detach().numpy()[:, 0])
