"""An index of items that come with their vectors: no encoder is needed, and none is run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idiolect.errors import ConfigError, InputError
from idiolect.search.index import Index
from idiolect.search.items import Item
from search.things import nearest, thing, vector
from search.words import Words

THINGS = [thing(n, even=n % 2 == 0) for n in range(40)]


def _ids(hits: Any) -> list[str]:
    return [hit.id for hit in hits]


def _build(path: Path, items: Any = THINGS, **options: Any) -> Index:
    return Index.build(path / "index", None, items, **options)


def test_vectors_are_searched_by_vectors_and_texts_by_words(tmp_path: Path) -> None:
    queries = np.stack([vector(seed) for seed in range(100, 120)])
    with _build(tmp_path) as index:
        found = index.search_vectors(queries, 3)
        for query, hits in zip(queries, found, strict=True):
            expected = nearest(THINGS, query, 3)
            assert _ids(hits) == [id for id, _ in expected]
            assert [hit.score for hit in hits] == pytest.approx([s for _, s in expected], abs=1e-5)
        assert index.search_vectors(queries, 3, filter={"even": True}) != found
        assert _ids(index.search_vectors(queries[0])[0]) == _ids(index.search_vectors(queries)[0])
        assert _ids(index.search("number 7", 1)) == ["t7"], "words alone: no encoder was used"
        assert _ids(index.search("number 7", 1, mode="lexical")) == ["t7"]
        assert _ids(index.similar("t7", 2)) == _ids(index.search_vectors(vector(7), 3)[0][1:])
        with pytest.raises(ConfigError, match="need an encoder"):
            index.search("number 7", mode="dense")
    with pytest.raises(ConfigError, match=r"does not say which encoder .*search it by vectors"):
        Index.open(tmp_path / "index", Words(dimensions=8))


def test_the_items_of_an_index_are_read_changed_and_deleted(tmp_path: Path) -> None:
    with _build(tmp_path) as index:
        assert len(index) == 40
        assert "t3" in index
        assert THINGS[3] in index
        assert "t40" not in index
        assert 3 not in index
        assert list(index) == THINGS
        found = index.get("t3")
        assert found == THINGS[3]
        assert np.array_equal(found.vector, vector(3))  # type: ignore[union-attr]
        assert index.get("t40") is None
        with pytest.raises(InputError, match=r"id 3 is a int, not a string \(convert it with str"):
            index.get(3)  # type: ignore[arg-type]
        index.update("t3", text="a chair", metadata={"even": None, "new": True})
        assert index.get("t3") == Item("t3", "a chair", {"new": True})
        assert np.array_equal(index.get("t3").vector, vector(3))  # type: ignore[union-attr]
        index.update("t3", vector=vector(77))
        assert _ids(index.search_vectors(vector(77), 1)[0]) == ["t3"]
        assert index.delete(["t3", "t4", "none"]) == 2
        assert index.delete(filter={"even": True}) == 19
        assert len(index) == len(list(index)) == 19
        assert f"{tmp_path}/index': 19 items, 8 dimensions, cosine, encoder none>" in repr(index)
    shutil.rmtree(tmp_path / "index")
    assert repr(index) == f"<Index '{tmp_path}/index'>"


def test_a_ready_vector_is_not_computed_again(tmp_path: Path) -> None:
    encoder = Words(dimensions=8)
    items = [thing(1), Item("a", "red lamp"), Item("b", "blue lamp", vector=[1] * 8)]  # type: ignore[arg-type]
    with Index.build(tmp_path / "index", encoder, items) as index:
        assert dict(index.counts) == {"written": 3}
        assert encoder.encoded == ["red lamp"]
        assert np.array_equal(index.get("t1").vector, vector(1))  # type: ignore[union-attr]
        encoder.encoded.clear()
        assert dict(index.add(items)) == {"unchanged": 3}
        moved = [Item("b", "blue lamp", vector=np.arange(8.0)), Item("t1", "thing number 1")]
        assert dict(index.add(moved)) == {"written": 1, "unchanged": 1}
        assert np.array_equal(index.get("b").vector, np.arange(8.0))  # type: ignore[union-attr]
        assert dict(index.add([Item("b", "blue lamp", {"price": 1})])) == {"written": 1}
        assert np.array_equal(index.get("b").vector, np.arange(8.0))  # type: ignore[union-attr]
        assert encoder.encoded == []
        index.update("b", text="green chair")
        assert encoder.encoded == ["green chair"]
        assert _ids(index.search("green seat", 1, mode="dense")) == ["b"]
        with pytest.raises(InputError, match="the encoder finds no token in the new text"):
            index.update("b", text=" ")


def test_many_queries_have_the_results_of_each(tmp_path: Path) -> None:
    texts = ["red lamp", "blue lamp", "wooden chair", "oak table"] * 3
    items = [Item(f"i{n}", f"{text} {n}") for n, text in enumerate(texts)]
    with Index.build(tmp_path / "index", Words(), items) as index:
        queries = ["crimson seat", "", "lamp 5", "oak"]
        for mode in ("hybrid", "dense", "lexical"):
            found = index.search_many(queries, 4, mode=mode)  # type: ignore[arg-type]
            alone = [index.search(query, 4, mode=mode) for query in queries]  # type: ignore[arg-type]
            assert list(map(_ids, found)) == list(map(_ids, alone))
            scores = [[hit.score for hits in one for hit in hits] for one in (found, alone)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)
        assert index.search_many([]) == []
        with pytest.raises(InputError, match="not one text"):
            index.search_many("lamp")
        with pytest.raises(InputError, match=r"the query is a list, .*search_many takes"):
            index.search(["lamp"])  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"unknown mode 'hybird' \(did you mean hybrid\?\)"):
            index.search("lamp", mode="hybird")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (np.ones(5), "item 'x': its vector has 5 dimensions, the store has 8"),
        (np.array([1] * 7 + [np.nan]), "item 'x': its vector has nan at 7"),
        (np.array([np.inf] + [1] * 7), "item 'x': its vector has inf at 0"),
        (np.full(8, 1e300), "item 'x': its vector has 1e"),
        (np.ones((1, 8)), r"item 'x': its vector has the shape \(1, 8\)"),
        (["a"] * 8, "item 'x': its vector is not numeric"),
        ([[1], [1, 2]], "item 'x': its vector is not numeric"),
        ("12345678", "item 'x': its vector is not numeric"),
        ({"values": [1] * 8}, "item 'x': its vector is not numeric"),
    ],
)
def test_an_invalid_vector_is_named_before_anything_is_written(
    own: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        _build(tmp_path, [thing(1), Item("x", "bad", vector=own)])
    with Index.open(tmp_path / "index") as index:
        assert len(index) == 0


def test_an_item_without_a_vector_needs_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"item 'x' has no vector, and there is no encoder"):
        _build(tmp_path, [Item("x", "red lamp")])
    with pytest.raises(InputError, match="there are no items"):
        _build(tmp_path, [])
    assert not (tmp_path / "index").exists()
    with pytest.raises(ConfigError, match="item 'x' has no vector, and the index has no encoder"):
        _build(tmp_path, [thing(1), Item("x", "red lamp")])
    with pytest.raises(InputError, match="vectors of 8 dimensions with metric cosine, not 6"):
        Index.build(tmp_path / "index", Words(dimensions=6), [])
    with (
        _build(tmp_path / "wide", [], dimensions=6) as index,
        pytest.raises(InputError, match="item 't1': its vector has 8 dimensions"),
    ):
        index.add([thing(1)])


def test_an_item_whose_vector_is_zero_is_left_out_and_counted(tmp_path: Path) -> None:
    items = [thing(1), Item("zero", "nothing", vector=np.zeros(8, np.float32))]
    with _build(tmp_path, items) as index:
        assert dict(index.counts) == {"written": 1, "empty": 1}
        assert dict(index.add([Item("t1", "x", vector=np.zeros(8))])) == {"empty": 1}  # type: ignore[arg-type]
        assert len(index) == 0
