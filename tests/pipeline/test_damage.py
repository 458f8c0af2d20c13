"""Runs whose finished stages lost a file, or whose records are damaged, and what users add."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from idiolect.pipeline.run import run
from idiolect.pipeline.stages.index_stage import open_index
from idiolect.search.items import Item
from idiolect.search.store.store import Store
from pipeline.shop import change, open_shop

_STAGES = ("audit", "extend", "distill", "pretrain", "tune", "index", "evaluate")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a shop with a finished run without controls."""
    folder = tmp_path_factory.mktemp("made")
    run(open_shop(folder))
    return folder


@pytest.fixture
def stages(made: Path, tmp_path: Path) -> Path:
    """The stages of a finished run that may be changed."""
    shutil.copytree(made, tmp_path / "shop")
    return tmp_path / "shop" / "run" / "stages"


def repeated(stages: Path) -> set[str]:
    """Run again; return the stages that ran."""
    config = stages.parents[1] / "idiolect.toml"
    before = {path.name: path.stat().st_ino for path in stages.iterdir()}
    run(config)
    after = {path.name: path.stat().st_ino for path in stages.iterdir()}
    assert set(after) == set(_STAGES)
    return {name for name in after if after[name] != before.get(name)}


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def ledger(stages: Path) -> Path:
    return stages / "index" / "index" / "ledger.db"


def test_a_copy_elsewhere_is_unchanged(stages: Path) -> None:
    assert repeated(stages) == set()


def test_truncated_files_are_named_and_made_again(
    stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stages that read them are not repeated, because their results are the same again."""
    damaged = {
        "audit": "terms.json",
        "extend": "model/tokenizer.json",
        "pretrain": "model/model.safetensors",
        "index": "index/ledger.db",
    }
    files = {name: stages / name / file for name, file in damaged.items()}
    whole = {name: path.read_bytes() for name, path in files.items()}
    for path in files.values():
        halve(path)
    assert repeated(stages) == set(damaged)
    printed = capsys.readouterr().err
    for name, file in damaged.items():
        if name != "index":
            assert f"{name}: {file} has " in printed
            assert files[name].read_bytes() == whole[name]
    assert "repeating the stage" in printed
    with open_index(stages.parent) as index:
        assert index.search("quendrifolate", 1)[0].id.startswith("quendrifolate")


def test_missing_files_and_folders_are_made_again(
    stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(stages / "distill")
    (stages / "tune" / "model" / "config.json").unlink()
    ledger(stages).unlink()
    (stages / "evaluate" / "vectors.npy").unlink()
    assert repeated(stages) == {"distill", "tune", "index", "evaluate"}
    printed = capsys.readouterr().err
    assert "tune: model/config.json is missing; repeating the stage" in printed
    assert "evaluate: vectors.npy is missing; repeating the stage" in printed
    assert "no index at" in printed
    assert repeated(stages) == set()


@pytest.mark.parametrize("name", ["inputs.json", "outputs.json", "metrics.json"])
def test_a_damaged_record_of_a_stage(stages: Path, name: str) -> None:
    halve(stages / "extend" / name)
    assert repeated(stages) == {"extend"}


def test_damaged_records_of_the_run(
    stages: Path, capsys: pytest.CaptureFixture[str], drawn_charts: None
) -> None:
    folder = stages.parent
    metrics = (folder / "metrics.json").read_text()
    report = (folder / "report.html").read_text()
    for name in ("manifest.json", "metrics.json", "report.html", "idiolect.toml"):
        halve(folder / name)
    assert repeated(stages) == set()
    assert "manifest.json is damaged and is written again" in capsys.readouterr().err
    assert (folder / "metrics.json").read_text() == metrics
    assert len((folder / "report.html").read_text()) == pytest.approx(len(report), rel=0.01)
    halve(folder / "report.html")
    assert repeated(stages) == set()
    assert (folder / "report.html").read_text().endswith(report[-20:])


def test_a_run_without_its_manifest_is_still_one(
    stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = stages.parent / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.unlink()
    with open_index(stages.parent) as index:
        assert index.search("quendrifolate", 1)
    assert repeated(stages) == set()
    assert "manifest.json is missing and is written again" in capsys.readouterr().err
    assert json.loads(manifest.read_text())["stages"] == whole["stages"]


@pytest.mark.parametrize(
    "text",
    [
        '{"stages": {"audit": 3}}',
        '{"stages": {"audit": {"secomds": 1}}}',
        '{"format": "2"}',
        '{"report": 3}',
        '{"report": {"report.html": 5}}',
    ],
)
def test_a_manifest_of_another_form(stages: Path, text: str) -> None:
    (stages.parent / "manifest.json").write_text(text)
    assert repeated(stages) == set()


@pytest.mark.parametrize(
    "record",
    [
        "{}",
        '{"files": {}}',
        '{"files": {"terms.json": 3}}',
        '{"files": {"terms.json": {"size": 1}}}',
    ],
)
def test_a_record_of_another_form(stages: Path, record: str) -> None:
    (stages / "audit" / "outputs.json").write_text(record)
    assert repeated(stages) == {"audit"}


def test_an_unfinished_stage_with_a_damaged_record_begins_again(stages: Path) -> None:
    (stages / "tune").rename(stages / ".tune.partial")
    halve(stages / ".tune.partial" / "inputs.json")
    assert repeated(stages) == {"tune"}


def test_what_users_add_is_no_damage_and_is_kept(
    stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stages / "audit" / "notes.txt").write_text("look at these terms")
    (stages / "mine.txt").write_text("x")
    config = stages.parents[1] / "idiolect.toml"
    run(config)
    assert "repeating" not in capsys.readouterr().err
    halve(stages / "audit" / "terms.json")
    run(config)
    assert (stages / "mine.txt").exists()
    kept = stages.parent / "replaced" / "audit-1" / "notes.txt"
    assert kept.read_text() == "look at these terms"
    assert f"audit: notes.txt had changed since the run; kept in {kept.parent}" in (
        capsys.readouterr().err.replace("\n", " ")
    )


def add_item(stages: Path) -> None:
    with open_index(stages.parent) as index:
        index.add([Item("new-1", "a wozzelflitter for the garden")])


def test_items_added_to_the_index_are_no_damage(stages: Path) -> None:
    add_item(stages)
    assert repeated(stages) == set()
    with open_index(stages.parent) as index:
        assert index.search("wozzelflitter", 1, mode="lexical")[0].id == "new-1"


@pytest.mark.parametrize("reason", ["settings", "damage"])
def test_an_index_with_added_items_is_kept_aside(
    stages: Path, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    add_item(stages)
    if reason == "settings":
        change(stages.parents[1] / "idiolect.toml", "[tune]\nsteps = 3", "[tune]\nsteps = 2")
        assert repeated(stages) == {"tune", "index", "evaluate"}
    else:
        halve(ledger(stages))
        assert repeated(stages) == {"index"}
    assert "index: index had changed since the run; kept in" in capsys.readouterr().err
    assert (stages.parent / "replaced" / "index-1" / "index" / "ledger.db").exists()
    with open_index(stages.parent) as index:
        assert not [hit for hit in index.search("wozzelflitter", 3) if hit.id == "new-1"]


def test_a_damaged_graph_is_rebuilt_from_the_ledger(
    stages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So items that users added remain."""
    add_item(stages)
    folder = stages / "index" / "index"
    with Store.open(folder, merge_after=1, background=False) as store:
        store.merge(rebuild=True)
    run(stages.parents[1] / "idiolect.toml")
    (rows,) = (folder / "graphs").rglob("rows")
    halve(rows)
    capsys.readouterr()
    assert repeated(stages) == set()
    assert "rebuilding it from the ledger" in capsys.readouterr().err
    with open_index(stages.parent) as index:
        assert index.search("wozzelflitter", 1, mode="lexical")[0].id == "new-1"


def test_an_old_index_without_changes_is_not_kept(stages: Path) -> None:
    change(stages.parents[1] / "idiolect.toml", "[tune]\nsteps = 3", "[tune]\nsteps = 2")
    assert repeated(stages) == {"tune", "index", "evaluate"}
    assert not (stages.parent / "replaced").exists()
    record = json.loads((stages / "index" / "outputs.json").read_text())
    assert record["state"]
