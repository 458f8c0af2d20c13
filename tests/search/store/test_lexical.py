"""BM25 scores against the formula, and the matching of query words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.search.items import Item
from idiolect.search.store.lexical import Lexical, match_expression
from idiolect.search.store.store import Store
from search.things import DIMENSIONS, vector

TEXTS = [
    "red lamp",
    "a red and a blue lamp, both of them red",
    "blue chair",
    "green chair with a long description that never ends and goes on and on",
    "yellow table",
    "table",
    "XR-2000B running hot",
    "XR 3000",
    "Café crème",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder: Path = tmp_path_factory.mktemp("words") / "index"
    with Store.open(folder, dimensions=DIMENSIONS) as opened:
        opened.upsert([Item(str(n), text, {}, vector(n)) for n, text in enumerate(TEXTS)])
        opened.upsert([Item("x", "lamp lamp lamp", {}, vector(1))], namespace="other")
        yield opened


def _bm25(
    texts: Sequence[str], query: Sequence[str], k1: float = 1.2, b: float = 0.75
) -> dict[str, float]:
    """Robertson & Zaragoza 2009, equation 3.15, over lower-case words without punctuation."""
    documents = [text.lower().replace(",", "").split() for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores: dict[str, float] = {}
    for place, words in enumerate(documents):
        norm = k1 * (1 - b + b * len(words) / mean)
        for term in set(query) & set(words):
            holding = sum(term in other for other in documents)
            idf = math.log((len(documents) - holding + 0.5) / (holding + 0.5))
            part = idf * words.count(term) * (k1 + 1) / (words.count(term) + norm)
            scores[str(place)] = scores.get(str(place), 0) + part
    return scores


def test_scores_are_bm25(tmp_path: Path) -> None:
    plain = TEXTS[:6]  # words that stemming does not change
    with Store.open(tmp_path / "index", dimensions=DIMENSIONS) as store:
        store.upsert([Item(str(n), text, {}, vector(n)) for n, text in enumerate(plain)])
        for query in (["red"], ["blue", "lamp"], ["green", "red"]):
            hits = store.match(" ".join(query), 10)
            scores = {hit.id: hit.score for hit in hits}
            assert scores == pytest.approx(_bm25(plain, query), abs=2e-6)


def test_words_with_several_parts_are_phrases_and_words_are_stemmed(store: Store) -> None:
    def found(query: str) -> set[str]:
        return {hit.id for hit in store.match(query, 10)}

    assert found("xr-2000b") == {"6"}
    assert found("xr") == {"6", "7"}
    assert found("run") == found("runs") == found("running") == {"6"}
    assert found("CHAIRS") == {"2", "3"}
    assert found("cafe creme") == {"8"}
    assert found('"unclosed (lamp') == {"0", "1"}


def test_a_namespace_has_its_own_words(store: Store) -> None:
    assert [hit.id for hit in store.match("lamp", 10, namespace="other")] == ["x"]
    assert "x" not in {hit.id for hit in store.match("lamp", 10)}


def test_highlights_mark_the_matched_words(store: Store) -> None:
    hits = store.match("red lamps", 10, marks=("[", "]"))
    assert {hit.id: hit.highlight for hit in hits} == {
        "0": "[red] [lamp]",
        "1": "a [red] and a blue [lamp], both of them [red]",
    }
    long = f"{'filler ' * 100}needle {'filler ' * 100}"
    store.upsert([Item("long", long, {}, vector(50))], namespace="long")
    (hit,) = store.match("needle", 1, namespace="long", marks=("[", "]"))
    assert "[needle]" in hit.highlight
    assert len(hit.highlight) < 300


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_a_query(store: Store, text: str) -> None:
    hits = store.match(text, 3, marks=("[", "]"))
    assert len({hit.id for hit in hits}) == len(hits) <= 3


def test_a_very_long_query_is_truncated() -> None:
    assert match_expression("a b " * 10_000).count("OR") == 1
    assert match_expression(" ".join(map(str, range(10_000)))).count("OR") == 255


def test_rows_with_only_the_most_frequent_words_are_not_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They made a search of abstracts take 1.7 times as long, and changed none of its results."""
    random = np.random.default_rng(0)
    rare = [f"w{chr(97 + n)}q" for n in range(26)]
    texts = [f"the lamp of {' '.join(random.choice(rare, 3))}" for _ in range(120)]
    ranked: list[list[str]] = []
    rank = Lexical._best

    def spy(self: Lexical, terms: list[str], *rest: Any) -> Any:
        ranked.append(list(terms))
        return rank(self, terms, *rest)

    with Store.open(tmp_path / "index", dimensions=DIMENSIONS) as store:
        store.upsert([Item(str(n), text, {}, vector(n)) for n, text in enumerate(texts)])
        monkeypatch.setattr(Lexical, "_best", spy)
        hits = store.match("the waq lamp wbq", 5)
        assert ranked == [['"waq"', '"wbq"']]
        monkeypatch.setattr(Lexical, "_rarer", lambda self, terms: [])
        everything = store.match("the waq lamp wbq", 5)
        assert [hit.id for hit in hits] == [hit.id for hit in everything]
        assert [hit.score for hit in hits] == pytest.approx(
            [hit.score for hit in everything], abs=1e-5
        )
        monkeypatch.undo()
        # Rows with frequent words follow if there are too few others, or no other words.
        holding = sum("waq" in text for text in texts)
        found = store.match("the waq", 100)
        assert len(found) == 100
        assert all("waq" in hit.text for hit in found[:holding])
        assert len(store.match("the of", 100)) == 100
