"""The study of examples/smollm2 in miniature: a tiny model and one collection."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.bpe import train
from pipeline.shop import COMMON, KINDS, table, write

LAYERS, WIDTH = 2, 8


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A study of a shop whose training pairs name the items of some queries."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from smollm2.__main__ import Study
    from smollm2.adaptation import Budget

    draw = random.Random(0)
    general = [" ".join(draw.choices(COMMON, k=60)) for _ in range(40)]
    settings = {
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": 12,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    LanguageModel.new(settings, train(general, 280)).save(tmp_path / "model")
    data = tmp_path / "out" / "scifact" / "data"
    data.mkdir(parents=True)
    items = [
        {
            "id": f"{name}-{n}",
            "text": f"the {name} is {what} {' '.join(draw.choices(COMMON, k=30))}",
        }
        for name, what in KINDS.items()
        for n in range(10)
    ]
    write(data / "items.jsonl", items)
    write(data / "corpus.jsonl", [{"text": item["text"]} for item in items for _ in range(2)])
    write(data / "general.jsonl", [{"text": text} for text in general])
    write(data / "queries.jsonl", [{"id": name, "text": what} for name, what in KINDS.items()])
    table(data / "qrels.tsv", [f"{name}\t{name}-{n}\t1" for name in KINDS for n in range(3)])
    # Items 5 to 9 are in no test; of one kind, training also names an item that is.
    pairs = [{"query": f"{i['id'][:-2]} {n}", "document_id": i["id"]} for n, i in enumerate(items)]
    named = [p for p in pairs if p["document_id"][-1] in "56789"]
    first = next(iter(KINDS))
    leak = [{"query": f"find {n}", "document_id": f"{first}-0"} for n in range(2)]
    write(data / "pairs.jsonl", named + leak)
    wiki = tmp_path / "data" / "wikitext-2"
    wiki.mkdir(parents=True)
    # Without new tokens, so that the divergence from the base can be measured.
    other = " ".join(draw.choices(["moon", "tree", "stone", "river"], k=400))
    (wiki / "test.txt.gz").write_bytes(gzip.compress(other.encode()))
    return Study(
        tmp_path / "data",
        tmp_path / "out",
        base=str(tmp_path / "model"),
        encoder=None,
        rows=8,
        budget=Budget(steps=1, characters=2000),
        steps=2,
        seeds=1,
    )


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_measures_every_step_and_does_none_twice(study: Any) -> None:
    parts = ("static", "language", "layers")
    study.run(["scifact"], parts)
    folder, log = study.out / "scifact", study.out / "log.txt"
    steps = log.read_text().splitlines()
    cells = {path.name for path in folder.glob("*.*.*.json")}
    assert {f"static.{tokens}.tuning.0.json" for tokens in ("none", "new", "random")} <= cells
    assert {"two.none.base.json", "two.new.vocabulary.json", "two.random.tuning.0.json"} <= cells
    vocabulary = read(folder / "vocabulary.json")
    assert all(
        one["added"] == 8 and not any(check["changed"] for check in one["checks"].values())
        for one in vocabulary.values()
    )
    assert vocabulary["new"]["checks"]["domain"]["saving"] > 0.1
    language = {t: read(folder / f"adapted.{t}" / "language.json") for t in ("none", "new")}
    assert language["new"]["pretraining"]["original_rows_identical"]
    # The base, which it is compared with, was not trained as well.
    assert language["none"]["pretraining"]["forgetting"]["divergence"] > 0
    sizes = {t: one["pretraining"]["domain"]["bytes"] for t, one in language.items()}
    assert sizes["new"] == sizes["none"]
    # Only the items of one query are in training.
    words = read(folder / "words.json")
    assert sorted(words["unseen"]) == sorted(list(KINDS)[1:])
    tables = (study.out / "tables.md").read_text()
    assert "3 of 4 queries ask for unseen items only" in tables
    assert "SmolLM2, 2 layers, dense, new tokens" in tables

    tuned = folder / "static.new.tuning.0.json"
    before = tuned.read_bytes()
    study.run(["scifact"], parts)
    assert log.read_text().splitlines() == steps
    tuned.unlink()  # as if killed before this step was saved
    study.run(["scifact"], parts)
    assert len(log.read_text().splitlines()) == len(steps) + 1
    assert tuned.read_bytes() == before


def test_no_encoder_trains_the_model_of_another(study: Any) -> None:
    one, other = (study._model("cranfield", "two", "none", "pretraining") for _ in range(2))
    shared = {weight.data_ptr() for weight in one.network.parameters()}
    assert not shared & {weight.data_ptr() for weight in other.network.parameters()}


def test_new_tokens_leave_static_vectors_as_they_were(study: Any) -> None:
    from smollm2 import rankings

    study.prepare("scifact")
    texts = list(study.judged("scifact")[0].items.values())
    recipe = rankings.RECIPES["static"]
    one, other = (
        rankings.make_encoder(study._model("scifact", "static", tokens, "vocabulary"), recipe)
        for tokens in ("none", "new")
    )
    assert len(other.model.tokenizer) == len(one.model.tokenizer) + 8
    assert other.encode(texts) == pytest.approx(one.encode(texts), abs=1e-5)
