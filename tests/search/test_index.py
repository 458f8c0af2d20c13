"""An index: built, resumed, changed and searched in each mode."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idiolect.errors import ConfigError, InputError
from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.search.store.store import Store
from search.words import Words

ITEMS = [
    Item("p1", "red lamp", {"price": 20}),
    Item("p2", "blue lamp", {"price": 30}),
    Item("p3", "red chair", {"price": 80}),
    Item("p4", "wooden table", {"price": 90}),
    Item("p5", "light wooden table", {"price": 95}),
]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.build(tmp_path / "index", _words(), ITEMS) as built:
        yield built


def _words(**options: Any) -> Any:
    return Words(**options)


def _ids(hits: Any) -> list[str]:
    return [hit.id for hit in hits]


def test_dense_lexical_and_hybrid_search(index: Index) -> None:
    assert _ids(index.search("crimson seat", 1, mode="dense")) == ["p3"]
    assert index.search("crimson seat", 1, mode="lexical") == []
    assert _ids(index.search("crimson seat", 1)) == ["p3"]
    assert _ids(index.search("blue", 5, mode="lexical")) == ["p2"]
    both = index.search("light", 2)
    assert both[0].id == "p5"  # found by words and by vectors
    dense = index.search("light", 5, mode="dense")
    low, high = dense[-1].score, dense[0].score
    own = (next(hit.score for hit in dense if hit.id == "p5") - low) / (high - low)
    assert both[0].score == pytest.approx(0.6 * 1 + 0.4 * own)
    (rrf, _) = index.search("light", 2, fusion="rrf")
    assert rrf.score == pytest.approx(
        61 / 2 * (1 / 61 + 1 / (60 + _dense_rank(index, "light", "p5")))
    )
    assert _ids(index.search("red lamp", 5, filter={"price": {"$gt": 25}}))[0] in ("p2", "p3")
    assert {hit.metadata["price"] for hit in index.search("lamp", filter={"price": 20})} == {20}
    with pytest.raises(InputError, match="unknown mode 'both'"):
        index.search("x", mode="both")  # type: ignore[arg-type]


def _dense_rank(index: Index, query: str, id: str) -> int:
    return 1 + _ids(index.search(query, 5, mode="dense")).index(id)


def test_similar_needs_no_encoder_and_excludes_the_item(index: Index, tmp_path: Path) -> None:
    with Index.open(tmp_path / "index") as other:
        assert _ids(other.similar("p4", 1)) == ["p5"]
        assert "p4" not in _ids(other.similar("p4", 100))
        assert len(other.similar("p4", 100)) == 4
        assert _ids(other.similar("p4", 5, filter={"price": {"$lt": 25}})) == ["p1"]
        assert _ids(other.search("lamp", mode="lexical")) == ["p1", "p2"]
        with pytest.raises(InputError, match="no item 'p9'"):
            other.similar("p9")
        with pytest.raises(ConfigError, match="need an encoder"):
            other.search("lamp")


def test_another_encoder_is_rejected(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"was built with encoder words…, this is others…"):
        Index.open(tmp_path / "index", _words(fingerprint="others"))
    with pytest.raises(ConfigError, match="was built with"):
        Index.build(tmp_path / "index", _words(fingerprint="others"), ITEMS)
    with Store.open(tmp_path / "vectors", dimensions=32) as store:
        store.upsert([Item("a", "", {}, np.ones(32, np.float32))])
        with pytest.raises(ConfigError, match="does not say which encoder"):
            Index(store, _words())


def test_an_index_without_items_accepts_another_encoder(tmp_path: Path) -> None:
    Index.build(tmp_path / "index", _words(), []).close()

    others = _words()
    others.fingerprint = "others"
    with Index.build(tmp_path / "index", others, ITEMS) as index:
        assert index.store.settings["encoder"] == "others"


def test_an_interrupted_build_resumes(tmp_path: Path) -> None:
    many = [Item(f"i{n}", f"word{n}", {"n": n}) for n in range(1500)]

    def failing() -> Iterator[Item]:
        yield from many[:1200]
        raise KeyboardInterrupt

    encoder = _words()
    with pytest.raises(KeyboardInterrupt):
        Index.build(tmp_path / "index", encoder, failing())
    done = len(encoder.encoded)
    assert done == 1024  # whole batches
    with Index.build(tmp_path / "index", encoder, many) as index:
        assert len(encoder.encoded) == 1500
        assert dict(index.counts) == {"written": 1500 - done, "unchanged": done}
        assert index.store.namespaces() == {"": 1500}
    with Index.build(tmp_path / "index", encoder, iter(many)) as index:
        assert len(encoder.encoded) == 1500
        assert dict(index.counts) == {"unchanged": 1500}


def test_only_changed_texts_are_encoded_again(index: Index) -> None:
    encoder = index.encoder
    assert isinstance(encoder, Words)
    encoder.encoded.clear()
    changed = [
        Item("p1", "red lamp", {"price": 21}),
        Item("p2", "green lamp", {"price": 30}),
        ITEMS[2],
        Item("p6", "first", {}),
        Item("p6", "second", {}),
        Item("p7", "   ", {}),
    ]
    assert dict(index.add(changed)) == {"written": 3, "unchanged": 1, "empty": 1, "duplicate": 1}
    assert encoder.encoded == ["green lamp", "second", "   "]
    assert index.store.fetch(["p1"])["p1"].metadata == {"price": 21}
    assert _ids(index.search("second", 1)) == ["p6"]
    assert index.search("", 3) == []


def test_an_item_whose_text_became_empty_is_deleted(index: Index) -> None:
    """Otherwise searches would find its old text."""
    assert dict(index.add([Item("p1", "   ", {"price": 2})])) == {"empty": 1}
    assert not index.store.fetch(["p1"])
    assert "p1" not in _ids(index.search("red lamp", 5))


def test_the_first_results_do_not_depend_on_top_k(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ["red", "lamp", "crimson", "chair", "table", "light", "wooden", "seat", "blue", "green"]
    items = [Item(f"p{n:03}", " ".join(rng.choice(words, 6))) for n in range(400)]
    with Index.build(tmp_path / "index", _words(), items) as index:
        index.store.remember(dense_percent=70)
        for query in ("red lamp", "crimson seat", "light wooden table"):
            few = [(hit.id, hit.score) for hit in index.search(query, 10)]
            assert few == [(hit.id, hit.score) for hit in index.search(query, 100)][:10]


def test_diversity_and_highlights(index: Index) -> None:
    index.add([Item(f"twin{n}", "red lamp", {}) for n in range(5)])
    plain = {hit.text for hit in index.search("red lamp", 3)}
    assert plain == {"red lamp"}
    diverse = {hit.text for hit in index.search("red lamp", 3, mmr_diversity=0.7)}
    assert len(diverse) == 3
    (hit,) = index.search(
        "crimson lamp", 1, mode="lexical", filter={"price": 20}, highlight=("<", ">")
    )
    assert hit.highlight == "red <lamp>"


def test_truncated_vectors(tmp_path: Path) -> None:
    with Index.build(tmp_path / "index", _words(), ITEMS, dimensions=16) as index:
        assert index.store.dimensions == 16
        assert _ids(index.search("crimson seat", 1, mode="dense")) == ["p3"]
    with pytest.raises(InputError, match="16 dimensions"):
        Index.build(tmp_path / "index", _words(), ITEMS)


def test_an_index_on_milvus_has_the_same_results(index: Index, tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    from idiolect.search.milvus.milvus_store import MilvusStore

    store = MilvusStore.open(str(tmp_path / "milvus.db"), "things", dimensions=32)
    with Index(store, _words()) as other:
        assert dict(other.add(ITEMS)) == {"written": 5}
        assert dict(other.add(ITEMS)) == {"unchanged": 5}
        for mode in ("dense", "lexical"):
            ours, theirs = (one.search("red lamp", 5, mode=mode) for one in (index, other))
            assert ours[0].id == theirs[0].id == "p1"
            assert set(_ids(ours)) == set(_ids(theirs))  # some scores are equal
        assert _ids(other.similar("p4", 1)) == ["p5"]
        assert _ids(other.search("red lamp", 5, filter={"price": {"$lt": 25}})) == ["p1"]
        with pytest.raises(ConfigError, match="was built with"):
            Index(store, _words(fingerprint="others"))


def test_fitted_fusion_weights_are_stored(index: Index, tmp_path: Path) -> None:
    assert index.fusion == ("weighted", (0.4, 0.6))
    assert index.hybrid_weight.evidence == "the default for an encoder that was published as one"
    # Lexical search is wrong here: "light" occurs in the text of a table, and means a lamp.
    asked = {f"crimson light{' light' * n}": ["p1"] for n in range(150)}
    weights = index.fit_fusion(asked)
    assert weights[0] > 0.4
    assert index.fusion == ("weighted", pytest.approx(weights))
    assert "150 queries with known answers" in index.hybrid_weight.evidence
    found = index.search("light")
    assert _ids(found) == _ids(index.search("light", fusion="weighted", weights=weights))
    with Index.open(tmp_path / "index", _words()) as again:
        assert again.hybrid_weight == index.hybrid_weight
    assert index.fit_fusion(asked) == weights, "it starts from the default, not from itself"
    with pytest.raises(InputError, match="no queries"):
        index.fit_fusion({})


def test_without_weight_vectors_only_fill_up(tmp_path: Path) -> None:
    """A language model's vectors must not make hybrid search worse than words alone."""
    encoder = _words(published=False)
    with Index.build(tmp_path / "index", encoder, ITEMS) as index:
        assert index.hybrid_weight.dense == 0
        encoder.encoded.clear()
        for query in ("lamp", "light", "blue"):
            words = index.search(query, 1, mode="lexical")
            assert _ids(index.search(query, 1)) == _ids(words)
        assert not encoder.encoded, "no vector of a query is needed"
        found = index.search("light", 5)
        assert _ids(found)[:1] == _ids(index.search("light", 1, mode="lexical"))
        assert len(found) == 5
        assert [hit.score for hit in found] == [1, 0, 0, 0, 0]
        assert _ids(index.search("crimson seat", 1)) == ["p3"], "words find nothing"
    with Index.open(tmp_path / "index") as index:
        assert index.hybrid_weight.dense == 0, "known without the encoder"
        assert len(index.search("light", 5)) == 1


def test_the_language_of_an_index(tmp_path: Path) -> None:
    items = [Item("1", "rote lamp"), Item("2", "chair 赤いランプ")]
    with Index.build(tmp_path / "index", _words(), items, language="de") as index:
        assert index.store.settings["language"] == "de"
        assert _ids(index.search("rotes", 1, mode="lexical")) == ["1"]
        (hit,) = index.search("ランプ", 1, mode="lexical", highlight=("<", ">"))
        assert hit.highlight == "chair 赤い<ランプ>"


def test_the_last_of_several_items_with_one_id_wins_and_the_others_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also across the batches of 512 in which items are written."""
    caplog.set_level(logging.WARNING)
    many = [Item(f"i{n}", f"word{n}", {"n": n}) for n in range(600)]
    again = [Item("i0", "other"), Item("i1", "word1", {"n": 1}), Item("i599", "last"), many[3]]
    with Index.build(tmp_path / "index", _words(), [*many, *again]) as index:
        assert dict(index.counts) == {"written": 600, "duplicate": 4}
        assert index.store.namespaces() == {"": 600}
        found = index.store.fetch(["i0", "i1", "i599"])
        assert [item.text for item in found.values()] == ["other", "word1", "last"]
        assert "4 items had the id of an earlier one and replaced it: 'i599'" in caplog.text
        caplog.clear()
        assert dict(index.add(again)) == {"unchanged": 4}
        assert not caplog.text
        emptied = [Item("i5", "word5", {"n": 5}), *many[100:700], Item("i5", " ")]
        assert dict(index.add(emptied)) == {
            "unchanged": 499,
            "written": 1,
            "empty": 1,
            "duplicate": 1,
        }
        assert not index.store.fetch(["i5"])


def test_duplicates_are_counted_alike_on_milvus(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    from idiolect.search.milvus.milvus_store import MilvusStore

    store = MilvusStore.open(str(tmp_path / "milvus.db"), "things", dimensions=32)
    with Index(store, _words()) as index:
        items = [
            Item("a", "red lamp", {"f": 1}),
            Item("b", "chair"),
            Item("a", "lamp", {"f": True}),
        ]
        assert dict(index.add(items)) == {"written": 2, "duplicate": 1}
        assert store.fetch(["a"])["a"] == items[2]
        for value in (1, 1.0, True, 0.0, -0.0):
            changed = Item("a", "lamp", {"f": value})
            assert dict(index.add([changed])).keys() <= {"written", "unchanged"}
            assert repr(store.fetch(["a"])["a"].metadata["f"]) == repr(value)
            assert dict(index.add([changed])) == {"unchanged": 1}


def test_ids_that_look_alike_are_different_items(tmp_path: Path) -> None:
    ids = [
        "a",
        "A",
        "a ",
        " a",
        "\u00e9",
        "e\u0301",
        "E\u0301",
        "x" * 512,
        "a\nb",
        "%",
        "a'b\"c\\d",
    ]
    with Index.build(
        tmp_path / "index", _words(), [Item(id, f"lamp {n}") for n, id in enumerate(ids)]
    ) as index:
        assert dict(index.counts) == {"written": len(ids)}
        assert sorted(index.store.list()) == sorted(ids)
        for number, id in enumerate(ids):
            assert index.store.fetch([id])[id].text == f"lamp {number}"
            assert id not in _ids(index.similar(id, 20))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Item("", "red lamp"), "the item 'red lamp' has an empty id"),
        (Item("x" * 10_000, "lamp"), "has 10000 bytes"),
        (Item("a\x00", "lamp"), "NUL character"),
        (Item("\ud800", "lamp"), "not valid Unicode"),
        (Item(7, "lamp"), "id 7 is a int, not a string"),  # type: ignore[arg-type]
        (Item(None, "lamp"), "id None is a NoneType"),  # type: ignore[arg-type]
        (Item(["a"], "lamp"), "is a list, not a string"),  # type: ignore[arg-type]
        (Item("a", None), "item 'a': its text is a NoneType"),  # type: ignore[arg-type]
        (Item("a", 3), "item 'a': its text is a int"),  # type: ignore[arg-type]
        (Item("a", "lamp \udc80"), "item 'a': its text is not valid Unicode"),
        (Item("a", "lamp", ["x"]), "item 'a': its metadata is a list"),  # type: ignore[arg-type]
        (("a", "lamp", {}, None, 5), "item 2 is a tuple of 5 values"),
        ((None, "lamp"), "item 2: its id is None"),
        (("a", 3), "item 2: its text is an int, not a text"),
        (("a", "lamp", ["x"]), "item 2: its metadata is a list, not a dict"),
        (["a", "lamp"], "item 2 is a list, not an item"),
    ],
)
def test_an_invalid_item_is_named_before_anything_is_encoded(
    item: Item, message: str, tmp_path: Path
) -> None:
    encoder = _words()
    with pytest.raises(InputError, match=message):
        Index.build(tmp_path / "index", encoder, [Item("first", "red lamp"), item])
    assert encoder.encoded == []


def test_texts_with_odd_characters_are_stored_unchanged(tmp_path: Path) -> None:
    texts = [
        "red\x00lamp",
        "\ufeffred",
        "\u2028red",
        "red \U0001f4a1",
        "e\u0301 red",
        "red\x1b[31m",
    ]
    with Index.build(
        tmp_path / "index", _words(), [Item(str(n), text) for n, text in enumerate(texts)]
    ) as index:
        assert [item.text for item in index.store.items()] == texts
        assert "3" in _ids(index.search("red", 10, mode="lexical"))
        assert isinstance(index.store, Store)
        assert list(index.store.verify()) == []


def test_pairs_of_another_type_are_explained_by_their_name(index: Index) -> None:
    with pytest.raises(InputError, match=r"weights is a float, .*\(0\.7, 0\.3\), of the dense"):
        index.search("lamp", weights=0.7)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"highlight is a str, .*<b>"):
        index.search("lamp", highlight="<b>")  # type: ignore[arg-type]
