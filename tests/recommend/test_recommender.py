"""The fixed names: commands, JSON keys and the Python class, as they are used from outside."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from encoding.models import WORDS, tiny_encoder
from idiolect import Recommender
from idiolect.cli.main import app
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.recommend import recommender_files
from idiolect.recommend.scorers.dense_text import DenseText
from idiolect.recommend.train_recommender import train_recommender

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    lines = [f"u{user} " + " ".join(f"p{(user + i) % 9}" for i in range(5)) for user in range(30)]
    (folder / "histories.txt").write_text("\n".join(lines))
    items = [{"id": f"p{i}", "title": f"{'pen' if i % 2 else 'ink'} {i}"} for i in range(9)]
    items.append({"id": "new", "title": "pen new"})
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    return folder


def _run(*arguments: str) -> str:
    result = RUNNER.invoke(app, ["recommend", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("model", ["popularity", "transitions", "item-knn", "ease"])
def test_train_evaluate_and_recommend(model: str, shop: Path) -> None:
    run, items = str(shop / model), str(shop / "items.jsonl")
    _run("train", str(shop / "histories.txt"), "--model", model, "--items", items, "-o", run)
    figures = json.loads(_run("evaluate", run, "--json"))
    wanted = {"popularity", "transitions", "item-knn", "ease", "session-knn", "text", model}
    assert wanted <= figures["systems"].keys()
    for row in figures["systems"].values():
        assert 0 <= row["ndcg@10"] <= row["hr@10"] <= 1
    table = _run("evaluate", run).split(" cases, ")[0]
    assert model in table
    assert max(map(len, table.splitlines())) <= 80
    lines = _run(run, "--history", "p1,p2").splitlines()
    assert lines == _run("items", run, "--history", "p1,p2").splitlines()
    found = Recommender.load(run).recommend(["p1", "p2"], top_k=10, exclude_seen=True)
    assert [line.split()[1] for line in lines] == [one.id for one in found]
    assert not {"p1", "p2"} & {one.id for one in found}


def test_transitions_know_what_follows_and_why(shop: Path) -> None:
    run = str(shop / "follows")
    _run("train", str(shop / "histories.txt"), "--model", "transitions", "-o", run)
    first = Recommender.load(run).recommend(["p3"], top_k=1)[0]
    assert (first.id, first.because) == ("p4", "p3")


def test_unknown_ids_are_named_and_ints_are_ids(
    shop: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("1 7 8 9\n2 7 8 9\n3 8 9 7\n")
    run = str(tmp_path / "run")
    _run("train", str(tmp_path / "a.txt"), "--model", "transitions", "-o", run)
    loaded = Recommender.load(run)
    assert loaded.recommend([7]) == loaded.recommend(["7"])  # type: ignore[list-item]
    with caplog.at_level(logging.WARNING):
        found = loaded.recommend(["nothing"])
    assert "1 of 1 ids of the history are unknown: nothing" in caplog.text
    assert found
    with pytest.raises(InputError, match="not one text"):
        loaded.recommend("7")
    with pytest.raises(InputError, match="top_k"):
        loaded.recommend(["7"], top_k=0)


def test_folders_without_a_recommender(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no recommender"):
        Recommender.load(tmp_path)
    result = RUNNER.invoke(app, ["recommend", "nowhere", "--history", "1"])
    assert isinstance(result.exception, InputError)
    assert "train, evaluate, index and items" in str(result.exception)


def test_a_killed_retraining_leaves_no_mixture(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(shop / "histories.txt")
    _run("train", data, "--model", "item-knn", "-o", str(tmp_path))

    def write(path: Path, content: bytes) -> None:
        path.write_bytes(content)
        raise KeyboardInterrupt  # after the first of several files

    monkeypatch.setattr(recommender_files, "write_atomic", write)
    with pytest.raises(KeyboardInterrupt):
        train_recommender(data, model="item-knn", output_dir=tmp_path)
    with pytest.raises(CheckpointError, match="no recommender"):
        Recommender.load(tmp_path)
    with pytest.raises(ConfigError, match="not trained in epochs"):
        train_recommender(data, model="item-knn", output_dir=tmp_path, epochs=3)


def test_another_model_does_not_replace_a_recommender(shop: Path, tmp_path: Path) -> None:
    data = str(shop / "histories.txt")
    _run("train", data, "--model", "transitions", "-o", str(tmp_path))
    saved = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="of the model transitions, not popularity"):
        train_recommender(data, model="popularity", output_dir=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == saved
    # The same model may learn newer histories.
    (tmp_path / "newer.txt").write_text(f"{Path(data).read_text()}\nnewer p1 p2 p3\n")
    again = train_recommender(tmp_path / "newer.txt", model="transitions", output_dir=tmp_path)
    assert len(again.histories) == 31


def test_a_blend_is_saved_with_its_parts(shop: Path) -> None:
    run = str(shop / "blend")
    _run(
        "train", str(shop / "histories.txt"), "--model", "blend", "--epochs", "2", "-o", run,
        "--items", str(shop / "items.jsonl"),
    )  # fmt: skip
    found = Recommender.load(run).recommend(["p3"], exclude_seen=False)
    assert found[0].id == "p4"
    assert "blend" in json.loads(_run("evaluate", run, "--json"))["systems"]


def test_an_encoder_of_the_texts_recommends_cold_items(shop: Path, tmp_path: Path) -> None:
    tiny_encoder().save(tmp_path / "encoder")
    words = [word for word in WORDS if word.isalpha()]
    items = [{"id": f"p{i}", "title": words[i % 3]} for i in range(9)]
    items += [{"id": "new", "title": words[1]}, {"id": "blank", "title": ""}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    run, histories = str(tmp_path / "run"), str(shop / "histories.txt")
    arguments = ("train", histories, "--model", "transitions", "-o", run)
    with pytest.raises(InputError, match="items' texts"):
        _run(*arguments, "--encoder", str(tmp_path / "encoder"))
    _run(
        *arguments, "--items", str(tmp_path / "items.jsonl"),
        "--encoder", str(tmp_path / "encoder"),
    )  # fmt: skip
    assert "text-dense" in json.loads(_run("evaluate", run, "--json"))["systems"]
    recommender = Recommender.load(run)
    assert recommender.vectors is not None
    number = {id: i for i, id in enumerate(recommender.histories.items)}
    scores = DenseText(recommender.vectors).score([np.array([number["p1"]])])[0]
    assert scores[number["new"]] == pytest.approx(1)  # the same text
    assert scores[number["p2"]] < 0.99
    assert scores[number["blank"]] == 0


def test_only_the_items_of_a_filter_are_recommended(shop: Path) -> None:
    run = str(shop / "filtered")
    _run("train", str(shop / "histories.txt"), "--model", "transitions", "-o", run)
    recommender = Recommender.load(run)
    ranked = [one.id for one in recommender.recommend(["p3"])]
    found = recommender.recommend(["p3"], top_k=2, only=["p7", "p6", "p3", "unknown"])
    assert [one.id for one in found] == [id for id in ranked if id in ("p6", "p7")]
    assert recommender.recommend(["p3"], only=[]) == []
    with pytest.raises(InputError, match="no id"):
        recommender.recommend(["p3"], only=[None])  # type: ignore[list-item]


def test_popularity_is_explained_by_no_item(shop: Path) -> None:
    run = str(shop / "popular")
    _run("train", str(shop / "histories.txt"), "--model", "popularity", "-o", run)
    assert {one.because for one in Recommender.load(run).recommend(["p3", "p4"])} == {None}


def test_the_last_items_of_a_long_history_explain(tmp_path: Path) -> None:
    rows = [" ".join(f"p{i}" for i in range(n, n + 5)) for n in range(76)]
    (tmp_path / "long.txt").write_text("\n".join(f"u{n} {row}" for n, row in enumerate(rows)))
    run = str(tmp_path / "run")
    _run("train", str(tmp_path / "long.txt"), "--model", "transitions", "-o", run)
    first = Recommender.load(run).recommend([f"p{i}" for i in range(70)], top_k=1)[0]
    assert (first.id, first.because) == ("p70", "p69")


@pytest.mark.parametrize(
    ("option", "message"),
    [({"loss": "softmax"}, "loss is 'softmax'"), ({"epochs": 0}, "epochs is 0")],
)
def test_unknown_settings_of_a_network_are_refused(
    option: dict[str, Any], message: str, shop: Path, tmp_path: Path
) -> None:
    """They were replaced by others, without a word."""
    with pytest.raises(ConfigError, match=message):
        train_recommender(
            shop / "histories.txt", model="sasrec", output_dir=tmp_path, **{"epochs": 1, **option}
        )
