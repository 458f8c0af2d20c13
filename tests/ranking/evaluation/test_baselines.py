"""BM25 and exact search: by hand, on real collections, and what has no answer."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.ranking.evaluation.judged_collection import read_qrels
from idiolect.ranking.evaluation.metrics import evaluate
from ranking import small

TEXTS = {"a": "toner printers printer", "b": "the laptop", "c": "toner for a laptop stand 12 V"}


def test_bm25_by_hand() -> None:
    """Stems and stop words; Lucene's formula with k1 = 0.9 and b = 0.4."""
    bm25 = BM25(TEXTS)
    lengths = {"a": 3, "b": 1, "c": 5}
    mean = sum(lengths.values()) / 3

    def weight(count: int, length: int, found: int) -> float:
        idf = math.log(1 + (3 - found + 0.5) / (found + 0.5))
        return idf * count / (count + 0.9 * (1 - 0.4 + 0.4 * length / mean))

    found = bm25.search({"q": "Printing"}) | bm25.search({"r": "a PRINTER's toner"})
    assert found["q"] == {}, "another stem"
    expected = weight(2, 3, 1) + weight(1, 3, 2)
    assert found["r"]["a"] == pytest.approx(expected, rel=1e-5)
    assert list(found["r"]) == ["a", "c"]
    assert found["r"]["c"] == pytest.approx(weight(1, 5, 2), rel=1e-5)
    assert bm25.score("a PRINTER's toner", ["b", "a"]).tolist() == pytest.approx([0, expected])
    assert list(bm25.search({"q": "12"})["q"]) == ["c"]


def test_bm25_without_words() -> None:
    bm25 = BM25(TEXTS)
    assert bm25.search({"q": "", "r": "unheard the"}) == {"q": {}, "r": {}}
    with pytest.raises(InputError, match="no words in 1 documents"):
        BM25({"a": "--- the"})
    with pytest.raises(InputError, match="no words in 0 documents"):
        BM25({})


def test_k_best_in_order() -> None:
    bm25 = BM25({str(i): "word " * i + "pad " * (9 - i) for i in range(1, 9)})
    assert list(bm25.search({"q": "word"}, top_k=3)["q"]) == ["8", "7", "6"]


def test_dense_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"d{i}": " ".join(small.WORDS[i : i + 3]) for i in range(20)}
    queries = {"q": "w3 w4", "r": "w9", "empty": " "}
    encoder = small.encoder()
    dense = Dense(encoder, texts)
    found = dense.search(queries, top_k=5)
    assert set(found) == {"q", "r"}, "an empty query has no answer"
    likeness = encoder.encode(["w3 w4"])[0] @ encoder.encode(list(texts.values())).T
    best = [f"d{i}" for i in np.argsort(-likeness)[:5]]
    assert list(found["q"]) == best
    assert found["q"][best[0]] == pytest.approx(float(likeness.max()), abs=1e-6)
    monkeypatch.setattr("idiolect.ranking.evaluation.baselines._SCORES_PER_BLOCK", 20)
    parted = dense.search(queries, top_k=5)
    for query, scores in found.items():
        assert parted[query] == pytest.approx(scores, abs=1e-6)


def test_fewer_dimensions_are_normalized_again() -> None:
    texts = {"a": "w1 w2", "b": "w5 w6"}
    dense = Dense(small.encoder(), texts)
    found = dense.search({"q": "w1 w2"}, dimensions=6)["q"]
    assert found["a"] == pytest.approx(1, abs=1e-6)
    scores = dense.score("w1 w2", ["b", "a"], dimensions=6)
    np.testing.assert_allclose(scores, [found["b"], found["a"]], atol=1e-6)
    np.testing.assert_allclose(dense.score("w5", ["a"]), dense.search({"q": "w5"})["q"]["a"])


def _table(archive: zipfile.ZipFile, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.TextIOWrapper(archive.open(name), "utf-8", newline="")))


@pytest.mark.slow
def test_bm25_on_scifact(shared: Path) -> None:
    """BEIR gives 0.665 (Thakur et al. 2021); stems and single letters add a little."""
    with zipfile.ZipFile(shared / "data" / "scifact" / "scifact.zip") as archive:
        abstracts, claims = (
            _table(archive, f"{name}.csv") for name in ("corpus_train", "claims_validation")
        )
    texts = {row["doc_id"]: f"{row['title']} {row['abstract']}" for row in abstracts}
    judged = {
        row["id"]: dict.fromkeys(re.findall(r"\d+", row["cited_doc_ids"]), 1.0) for row in claims
    }
    run = BM25(texts).search({row["id"]: row["claim"] for row in claims})
    result = evaluate(judged, run)
    assert result.queries == 300
    assert 0.66 <= result.means["ndcg@10"] <= 0.70


@pytest.mark.slow
def test_bm25_on_icecat(shared: Path) -> None:
    folder = shared / "data" / "icecat-chorus"
    texts = {}
    for path in sorted(folder.glob("products_*.json.zip")):
        with zipfile.ZipFile(path) as archive:
            products = json.loads(archive.read(archive.namelist()[0]))
        fields = ("title", "name", "supplier", "short_description")
        texts |= {p["id"]: " ".join(str(p.get(field) or "") for field in fields) for p in products}
    judged = read_qrels(folder / "Broad_Query_Set_rated.csv")
    result = evaluate(judged, BM25(texts).search({query: query for query in judged}))
    assert (result.queries, len(result.left_out)) == (116, 19)
    assert 0.72 <= result.means["ndcg@10"] <= 0.78
    assert 0.7 < result.means["judged@10"] < 0.9
