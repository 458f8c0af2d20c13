"""Every public function meets wrong arguments with one clear line, and takes what is plainly meant.

The tables list the arguments of the public API; each meets every value of `_WRONG`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoding.models import tiny_encoder
from idiolect import (
    Corpus,
    CrossEncoder,
    Encoder,
    Index,
    Item,
    LanguageModel,
    Tokenizer,
    TrainingConfig,
    TwoTower,
    audit,
    distill,
    evaluate,
    extend,
    pretrain,
    tune,
)
from idiolect.encoding.pairs import Pair
from idiolect.errors import IdiolectError, InputError
from idiolect.ranking.groups import QueryGroup
from idiolect.text.arguments import iterate_texts
from idiolect.text.tokenizers.bpe import train as train_bpe

_TEXTS = [f"the water in garden {number}" for number in range(60)]
_SMALL = {"batch_size": 2, "max_length": 8}
_SHAPE = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


class _Frame:
    """A table of columns, as pandas has them: iterating it yields their names."""

    columns = ("id", "text")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        """Return its rows."""
        assert orient == "records"
        return [{"id": 1, "text": "a lamp", "price": 5}]


_WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a number": lambda: 1.5,
    "a negative number": lambda: -3,
    "True": lambda: True,
    "a text": lambda: "nothing of this name",
    "an empty text": lambda: "",
    "a NUL": lambda: "a\0b",
    "a path": lambda: Path("no/such/file.txt"),
    "bytes": lambda: b"abc",
    "numbers": lambda: [1, 2],
    "nothing": lambda: [None],
    "an empty list": list,
    "a generator of numbers": lambda: iter((1, 2)),
    "a dict": lambda: {"a": "b"},
    "lists": lambda: [["a b"], ["c"]],
    "an object": object,
    "a type": lambda: int,
    "a function": lambda: print,
    "an array": lambda: np.zeros((2, 3)),
    "a scalar array": lambda: np.array("a b"),
    "a table": _Frame,
}


class _World:
    """What the calls need."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._count = folder, 0
        self.tokenizer = train_bpe(_TEXTS, 280)
        self.model = LanguageModel.new(_SHAPE, self.tokenizer)
        self.encoder = tiny_encoder("bert")
        self.bert = self.encoder.model
        self.ranker = CrossEncoder.of(self.bert)
        self.towers = TwoTower(self.encoder)
        self.index = Index.build(self.out(), self.encoder, [Item("1", "a b c"), Item("2", "d e")])
        (folder / "texts.txt").write_text("\n".join(_TEXTS))
        self.model.save(folder / "model")
        self.encoder.save(folder / "encoder")

    def out(self) -> Path:
        """A new path."""
        self._count += 1
        return self.last

    @property
    def last(self) -> Path:
        """The last new path."""
        return self.folder / f"out-{self._count}"

    def fresh(self) -> LanguageModel:
        """A model that may be trained."""
        return LanguageModel.new(_SHAPE, self.tokenizer)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    """Models, an index and a place for files; nothing is fetched from a hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        # Some values are paths of files to write.
        folder = tmp_path_factory.mktemp("world")
        patch.chdir(folder)
        yield _World(folder)


def _pretrain(world: _World, **values: Any) -> None:
    usual: dict[str, Any] = {"output_dir": world.out(), "steps": 1, "train": "all"}
    options = {"model": world.fresh(), "corpus": _TEXTS, **usual, "config": _SMALL, **values}
    pretrain(options.pop("model"), options.pop("corpus"), **options)


def _tune(world: _World, **values: Any) -> None:
    usual: dict[str, Any] = {"output_dir": world.out(), "steps": 1, "config": {"batch_size": 2}}
    options = {"encoder": tiny_encoder("bert"), "pairs": [("a", "b"), ("c", "d")], **usual}
    options |= values
    tune(options.pop("encoder"), options.pop("pairs"), **options)


def _train(world: _World, **values: Any) -> None:
    groups = [QueryGroup("a", ("b", "c"), (1.0, 0.0))]
    options = {"groups": groups, "output_dir": world.out(), **values}
    CrossEncoder.of(world.bert).train(options.pop("groups"), **options)


_JUDGED = {"q": {"a": 1}}

_CALLS: dict[str, Callable[[_World, Any], object]] = {
    "Corpus source": lambda w, x: list(Corpus(x)),
    "Corpus field": lambda w, x: list(Corpus(w.folder / "texts.txt", x)),
    "Corpus per": lambda w, x: Corpus(w.folder / "texts.txt", per=x),
    "Corpus limit": lambda w, x: Corpus(w.folder / "texts.txt", limit=x),
    "Corpus.from_texts": lambda w, x: list(Corpus.from_texts(x)),
    "Corpus.split": lambda w, x: Corpus.from_texts(_TEXTS).split(x),
    "Corpus.mix other": lambda w, x: Corpus.from_texts(_TEXTS).mix(x, 0.5),
    "Corpus.mix share": lambda w, x: Corpus.from_texts(_TEXTS).mix(Corpus.from_texts(_TEXTS), x),
    "Tokenizer.load": lambda w, x: Tokenizer.load(x),
    "Tokenizer.save": lambda w, x: w.tokenizer.save(x),
    "Tokenizer.encode": lambda w, x: w.tokenizer.encode(x),
    "Tokenizer.encode_batch": lambda w, x: w.tokenizer.encode_batch(x),
    "Tokenizer.encode_with_offsets": lambda w, x: w.tokenizer.encode_with_offsets(x),
    "Tokenizer.decode": lambda w, x: w.tokenizer.decode(x),
    "Tokenizer.decode_batch": lambda w, x: w.tokenizer.decode_batch(x),
    "LanguageModel.load": lambda w, x: LanguageModel.load(x),
    "LanguageModel.save": lambda w, x: w.model.save(x),
    "LanguageModel.new settings": lambda w, x: LanguageModel.new(x, w.tokenizer),
    "LanguageModel.new tokenizer": lambda w, x: LanguageModel.new(_SHAPE, x),
    "Encoder model": lambda w, x: Encoder(x),
    "Encoder pooling": lambda w, x: Encoder(w.bert, x),
    "Encoder prompts": lambda w, x: Encoder(w.bert, prompts=x),
    "Encoder max_length": lambda w, x: Encoder(w.bert, max_length=x),
    "Encoder.load": lambda w, x: Encoder.load(x),
    "Encoder.save": lambda w, x: w.encoder.save(x),
    "Encoder.encode texts": lambda w, x: w.encoder.encode(x),
    "Encoder.encode prompt_name": lambda w, x: w.encoder.encode(["a"], prompt_name=x),
    "Encoder.encode dimensions": lambda w, x: w.encoder.encode(["a"], dimensions=x),
    "Encoder.encode_to texts": lambda w, x: w.encoder.encode_to(w.out(), x),
    "Encoder.encode_to path": lambda w, x: w.encoder.encode_to(x, ["a"]),
    "Encoder.embed": lambda w, x: w.encoder.embed(x),
    "Encoder.project": lambda w, x: tiny_encoder("bert").project(x),
    "audit tokenizer": lambda w, x: audit(x, _TEXTS),
    "audit corpus": lambda w, x: audit(w.tokenizer, x),
    "audit general": lambda w, x: audit(w.tokenizer, _TEXTS, x),
    "audit glossary": lambda w, x: audit(w.tokenizer, _TEXTS, None, x),
    "Audit.choose": lambda w, x: audit(w.tokenizer, _TEXTS).choose(x),
    "extend base": lambda w, x: extend(x, ["zorblax"]),
    "extend terms": lambda w, x: extend(w.tokenizer, x),
    "extend method": lambda w, x: extend(w.tokenizer, ["zorblax"], x),
    "extend domain": lambda w, x: extend(w.tokenizer, ["zorblax"], domain=x),
    "extend general": lambda w, x: extend(w.tokenizer, ["zorblax"], general=x),
    "extend max_rows": lambda w, x: extend(w.tokenizer, ["zorblax"], max_rows=x),
    "extend init": lambda w, x: extend(w.model, ["zorblax"], init=x),
    "extend seed": lambda w, x: extend(w.model, ["zorblax"], seed=x),
    "distill model": lambda w, x: distill(x, w.model, _TEXTS),
    "distill teacher": lambda w, x: distill(extend(w.model, ["garden"]), x, _TEXTS),
    "distill corpus": lambda w, x: distill(extend(w.model, ["garden"]), w.model, x),
    "pretrain model": lambda w, x: _pretrain(w, model=x),
    "pretrain corpus": lambda w, x: _pretrain(w, corpus=x),
    "pretrain output_dir": lambda w, x: _pretrain(w, output_dir=x),
    "pretrain steps": lambda w, x: _pretrain(w, steps=x),
    "pretrain train": lambda w, x: _pretrain(w, train=x),
    "pretrain objective": lambda w, x: _pretrain(w, objective=x),
    "pretrain replay": lambda w, x: _pretrain(w, replay=x),
    "pretrain replay_share": lambda w, x: _pretrain(w, replay=_TEXTS, replay_share=x),
    "pretrain lora": lambda w, x: _pretrain(w, train="rows+lora", lora=x),
    "pretrain config": lambda w, x: _pretrain(w, config=x),
    "tune encoder": lambda w, x: _tune(w, encoder=x),
    "tune pairs": lambda w, x: _tune(w, pairs=x),
    "tune dimensions": lambda w, x: _tune(w, dimensions=x),
    "tune corpus": lambda w, x: _tune(w, corpus=x),
    "tune epochs": lambda w, x: _tune(w, steps=None, epochs=x),
    "tune mining": lambda w, x: _tune(w, mining=x),
    "Index store": lambda w, x: Index(x),
    "Index encoder": lambda w, x: Index(w.index.store, x),
    "Index.open": lambda w, x: Index.open(x),
    "Index.build path": lambda w, x: Index.build(x, w.encoder, [Item("1", "a")]).close(),
    "Index.build encoder": lambda w, x: Index.build(w.out(), x, [Item("1", "a")]),
    "Index.build dimensions": lambda w, x: Index.build(
        w.out(), w.encoder, [Item("1", "a")], dimensions=x
    ).close(),
    "Index.add": lambda w, x: w.index.add(x),
    "Index.search text": lambda w, x: w.index.search(x),
    "Index.search top_k": lambda w, x: w.index.search("a", x),
    "Index.search mode": lambda w, x: w.index.search("a", mode=x),
    "Index.search namespace": lambda w, x: w.index.search("a", namespace=x),
    "Index.search fusion": lambda w, x: w.index.search("a", fusion=x),
    "Index.search weights": lambda w, x: w.index.search("a", weights=x),
    "Index.search mmr_diversity": lambda w, x: w.index.search("a", mmr_diversity=x),
    "Index.search highlight": lambda w, x: w.index.search("a", highlight=x),
    "Index.search_many": lambda w, x: w.index.search_many(x),
    "Index.search_vectors": lambda w, x: w.index.search_vectors(x),
    "Index.search_vectors top_k": lambda w, x: w.index.search_vectors([], x),
    "Index.get": lambda w, x: w.index.get(x),
    "Index.get namespace": lambda w, x: w.index.get("1", namespace=x),
    "Index.delete": lambda w, x: w.index.delete(x),
    "Index.update id": lambda w, x: w.index.update(x, text="a b"),
    "Index.update text": lambda w, x: w.index.update("1", text=x),
    "Index.update metadata": lambda w, x: w.index.update("1", metadata=x),
    "Index.update vector": lambda w, x: w.index.update("1", vector=x),
    "Item vector": lambda w, x: w.index.add([Item("1", "a", vector=x)]),
    "Index.similar": lambda w, x: w.index.similar(x),
    "Index.fit_fusion": lambda w, x: w.index.fit_fusion(x),
    "CrossEncoder": lambda w, x: CrossEncoder(x),
    "CrossEncoder.of": lambda w, x: CrossEncoder.of(x),
    "CrossEncoder.load": lambda w, x: CrossEncoder.load(x),
    "CrossEncoder.score": lambda w, x: w.ranker.score(x),
    "CrossEncoder.train groups": lambda w, x: _train(w, groups=x),
    "CrossEncoder.train loss": lambda w, x: _train(w, loss=x),
    "TwoTower encoder": lambda w, x: TwoTower(x),
    "TwoTower crossing": lambda w, x: TwoTower(w.encoder, crossing=x),
    "TwoTower.load": lambda w, x: TwoTower.load(x),
    "TwoTower.encode": lambda w, x: w.towers.encode(x, prompt_name="query"),
    "TwoTower.encode prompt_name": lambda w, x: w.towers.encode(["a"], prompt_name=x),
    "TwoTower.score": lambda w, x: w.towers.score(x),
    "evaluate qrels": lambda w, x: evaluate(x, {"q": {"a": 1.0}}),
    "evaluate qrels of a query": lambda w, x: evaluate({"q": x}, {"q": {"a": 1.0}}),
    "evaluate run": lambda w, x: evaluate(_JUDGED, x),
    "evaluate grade": lambda w, x: evaluate({"q": {"a": x}}, {"q": {"a": 1.0}}),
    "evaluate score": lambda w, x: evaluate(_JUDGED, {"q": {"a": x}}),
    "evaluate metrics": lambda w, x: evaluate(_JUDGED, {"q": {"a": 1.0}}, metrics=x),
    "evaluate gain": lambda w, x: evaluate(_JUDGED, {"q": {"a": 1.0}}, gain=x),
    "evaluate relevant": lambda w, x: evaluate(_JUDGED, {"q": {"a": 1.0}}, relevant=x),
    **{
        f"TrainingConfig {name}": lambda w, x, name=name: TrainingConfig(**{name: x})  # type: ignore[misc]
        for name in TrainingConfig.__dataclass_fields__
    },
}


@pytest.mark.parametrize("call", _CALLS)
def test_wrong_arguments_are_one_clear_line(world: _World, call: str) -> None:
    """Each value is accepted, or the package's own error; nothing fails deep inside."""
    errors: dict[str, str] = {}
    for name, make in _WRONG.items():
        try:
            _CALLS[call](world, make())
        except IdiolectError as error:
            errors[name] = str(error)
        except Exception as error:
            pytest.fail(f"{call}: {name}: {type(error).__name__}: {error}")
    assert len(errors) > 5
    assert not {name: text for name, text in errors.items() if "\n" in text or len(text) > 300}


def _terms(tokenizer: Any, corpus: Any) -> list[str]:
    return [group.term for group in audit(tokenizer, corpus).groups]


def _pretrained(world: _World, **values: Any) -> list[float]:
    """Train one step from the same weights, and return a sum of each matrix."""
    _pretrain(world, **{"model": LanguageModel.load(world.folder / "model"), **values})
    return _sums(LanguageModel.load(world.last / "model"))


def _tuned(world: _World, pairs: Any) -> list[float]:
    encoder = Encoder.load(world.folder / "encoder")
    before = _sums(encoder.model)
    _tune(world, encoder=encoder, pairs=pairs)
    assert before != _sums(encoder.model), "it is trained in place"
    return _sums(encoder.model)


def _sums(model: LanguageModel) -> list[float]:
    return [float(weights.detach().abs().sum()) for weights in model.network.parameters()]


def _found(world: _World, encoder: Any) -> list[float]:
    with Index.build(world.out(), encoder, [Item("1", "a b"), Item("2", "d e")]) as index:
        return [hit.score for hit in index.search("a b")]


_Call = Callable[[_World], Any]
_MEANT: dict[str, tuple[_Call, _Call]] = {
    "a path for a corpus": (
        lambda w: _terms(w.tokenizer, w.folder / "texts.txt"),
        lambda w: _terms(w.tokenizer, _TEXTS),
    ),
    "texts for a corpus": (
        lambda w: _pretrained(w, corpus=iter(_TEXTS)),
        lambda w: _pretrained(w, corpus=Corpus.from_texts(_TEXTS)),
    ),
    "a path for a tokenizer": (
        lambda w: _terms(w.folder / "model", _TEXTS),
        lambda w: _terms(w.tokenizer, _TEXTS),
    ),
    "a model for its tokenizer": (
        lambda w: _terms(w.model, _TEXTS),
        lambda w: _terms(w.tokenizer, _TEXTS),
    ),
    "a path for a model": (
        lambda w: _pretrained(w, model=str(w.folder / "model")),
        lambda w: _pretrained(w),
    ),
    "an encoder for its model": (
        lambda w: CrossEncoder.of(w.encoder).score([("a", "b")]).tolist(),
        lambda w: CrossEncoder.of(w.bert).score([("a", "b")]).tolist(),
    ),
    "a path for an encoder": (
        lambda w: _found(w, w.folder / "encoder"),
        lambda w: _found(w, w.encoder),
    ),
    "a dict for settings": (
        lambda w: _pretrained(w, config={"batch_size": 1, "max_length": 8}),
        lambda w: _pretrained(w, config=TrainingConfig(batch_size=1, max_length=8)),
    ),
    "dicts for pairs": (
        lambda w: _tuned(w, [{"query": "a", "document": "b"}, Pair("c", "d")]),
        lambda w: _tuned(w, [Pair("a", "b"), Pair("c", "d")]),
    ),
    "tuples for pairs": (
        lambda w: _tuned(w, (pair for pair in (("a", "b"), ["c", "d"]))),
        lambda w: _tuned(w, [Pair("a", "b"), Pair("c", "d")]),
    ),
    "NumPy's numbers": (
        lambda w: w.index.search("a", np.int64(1), mmr_diversity=np.float32(0.5)),
        lambda w: w.index.search("a", 1, mmr_diversity=0.5),
    ),
    "a column of texts": (
        lambda w: w.encoder.encode(np.array(["a", "b"])).tolist(),
        lambda w: w.encoder.encode(["a", "b"]).tolist(),
    ),
    "a set for a corpus": (
        lambda w: sorted(_terms(w.tokenizer, set(_TEXTS))),
        lambda w: sorted(_terms(w.tokenizer, _TEXTS)),
    ),
}


@pytest.mark.parametrize("call", _MEANT)
def test_what_is_plainly_meant_is_accepted(world: _World, call: str) -> None:
    """It does the same as with arguments of the documented types."""
    given, plain = (call(world) for call in _MEANT[call])
    assert given
    assert given == plain


def test_a_generator_is_encoded_as_its_list(world: _World) -> None:
    texts = ["a b", "c", "d e f"]
    expected = world.encoder.encode(texts)
    for given in (iter(texts), tuple(texts), np.array(texts), Corpus.from_texts(texts)):
        assert np.array_equal(world.encoder.encode(given), expected)
    assert world.encoder.encode([]).shape == (0, world.encoder.dimensions)


def test_dicts_and_tables_are_items(world: _World) -> None:
    record = {"id": 7, "title": "lamp", "text": "a red lamp", "metadata": {"price": 5}, "shop": "x"}
    with Index.build(world.out(), world.encoder, [record]) as index:
        found = index.store.fetch(["7"])["7"]
    assert found.text == "a red lamp"
    assert found.metadata == {"price": 5, "shop": "x", "title": "lamp"}
    with Index.build(world.out(), world.encoder, _Frame()) as index:  # type: ignore[arg-type]
        assert json.loads(json.dumps(index.store.fetch(["1"])["1"].metadata)) == {"price": 5}


def test_objects_say_what_they_are(world: _World) -> None:
    model = r"LanguageModel \w+: [\d,]+ parameters, \d layers of \d+, [\d,]+ tokens"
    assert re.fullmatch(f"<{model}>", repr(world.model))
    encoder = rf"<Encoder of {model}: mean pooling, \d+ dimensions, max_length \d+, fp32>"
    assert re.fullmatch(encoder, repr(world.encoder))
    assert re.fullmatch(r"<Index '.*': \d items, \d+ dimensions, cosine.*>", repr(world.index))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: w.encoder.encode({"a": "b"}), r"texts is a dict.*list\(texts.values\(\)\)"),
        (lambda w: w.encoder.encode({"a", "b"}), r"texts is a set.*to give an order"),
        (lambda w: w.encoder.encode(_Frame()), r"texts is a _Frame.*one column.*\['text'\]"),
        (lambda w: w.encoder.encode(["a", b"b"]), r"text 1 is a bytes, not a text"),
        (lambda w: Corpus(None), r"source is None, not a path or a list of paths"),
        (lambda w: audit("no such tokenizer!", _TEXTS), r"no such file or directory: no such"),
        (lambda w: extend("gpt2", ["a"]), r"base is a str.*LanguageModel\.load"),
        (lambda w: w.index.add([{"text": "a"}]), r"item 1 has no id; there are text"),
        (lambda w: w.index.add("items.jsonl"), r"items is a str.*read_items"),
        (lambda w: w.ranker.score(("a", "b")), r"pair 0 is 'a' \(pass \[\(query, document\)"),
        (lambda w: evaluate("qrels.tsv", {}), r"qrels is a str, not a dict"),
        (lambda w: _pretrain(w, steps="10"), r"steps is a str, not a whole number"),
        (lambda w: TrainingConfig(batch_size="8"), r"batch_size is '8'.*whole number"),  # type: ignore[arg-type]
    ],
)
def test_messages_say_what_to_do(
    world: _World, call: Callable[[_World], Any], message: str
) -> None:
    with pytest.raises(IdiolectError, match=message):
        call(world)


def test_a_call_with_other_arguments_names_the_function() -> None:
    with pytest.raises(TypeError, match=r"evaluate\(\) takes 2 positional arguments"):
        evaluate({"q": {"d": 1}}, {"q": {"d": 1.0}}, 3)  # type: ignore[call-arg, misc]


def test_a_text_among_several_is_named() -> None:
    with pytest.raises(InputError, match="corpus: text 1 is None, not a text"):
        list(iterate_texts(["a", None], "corpus"))
