"""Histories add recommendation to a run: each system's vectors as item text, with a paired test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from idiolect import Recommender
from idiolect.cli.main import app
from idiolect.cli.run import results
from idiolect.pipeline.report.verdict import judge


@pytest.fixture(scope="module")
def metrics(finished: Path) -> dict:
    return json.loads((finished / "run" / "metrics.json").read_text())


def test_every_system_is_measured_as_item_text(finished: Path, metrics: dict) -> None:
    found = metrics["evaluate_recommend"]
    ranked = {one["name"] for one in metrics["evaluate"]["systems"] if one["search"]}
    assert {one["name"] for one in found["systems"]} == ranked - {"bm25", "words", "hybrid"}
    assert {"base", "vocabulary", "pretraining", "tuning", "plain.tuning"} <= ranked
    lines = (finished / "histories.jsonl").read_text().splitlines()
    rows = [json.loads(line)["items"] for line in lines]
    bought = {item for row in rows for item in row[:-2]}
    assert found["cold_cases"] == sum(row[-1] not in bought for row in rows) >= 4
    for system in found["systems"]:
        for use in ("text", "blend"):
            parts = [system[use][name]["ndcg@10"] for name in ("all", "warm", "cold")]
            cases, cold = found["cases"], found["cold_cases"]
            mean = (parts[1] * (cases - cold) + parts[2] * cold) / cases
            assert parts[0] == pytest.approx(mean)
    assert {"popularity", "transitions", "item-knn", "ease", "blend"} <= found["baselines"].keys()
    tested = {(r["use"], r["targets"], r["first"], r["second"]) for r in found["significance"]}
    assert ("text", "cold", "base", "tuning") in tested
    assert ("blend", "all", "plain.tuning", "tuning") in tested
    assert metrics["recommend"]["encoder"] in ("tuning", "plain.tuning", "base")


def test_the_report_compares_systems_as_item_text(finished: Path, metrics: dict) -> None:
    page = (finished / "run" / "report.html").read_text()
    assert 'id="recommending"' in page
    assert "Which item text recommends best?" in page
    assert any("Recommending" in finding.what for finding in judge(metrics).findings)


def test_a_run_recommends(finished: Path) -> None:
    history = "zorblaxine-1,zorblaxine-2"
    result = CliRunner().invoke(
        app, ["recommend", str(finished / "run"), "--history", history], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert result.stdout.split()[1].startswith("zorblaxine")
    recommender = Recommender.load(finished / "run")
    assert recommender.recommend(history.split(","))[0].text


def test_the_summary_shows_recommenders(metrics: dict) -> None:
    recommenders, texts = results(metrics)[-2:]
    found = metrics["evaluate_recommend"]
    names = list(recommenders.columns[0].cells)
    assert set(names) == found["baselines"].keys()
    shown = dict(zip(names, recommenders.columns[3].cells, strict=True))
    assert shown["text"] == f"{found['baselines']['text']['cold']['ndcg@10']:.3f}"
    assert {one["label"] for one in found["systems"]} <= set(texts.columns[0].cells)
    assert "recommending by texts (0." in judge(metrics).sentence
