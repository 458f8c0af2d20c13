"""idiolect.toml: defaults, and errors with their line and a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import ROOT
from idiolect.errors import CheckpointError, ConfigError, MissingDependencyError
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.settings import find_base
from idiolect.text import hub, packaged_models


def load(folder: Path, text: str) -> PipelineConfig:
    path = folder / "idiolect.toml"
    path.write_text(text)
    return PipelineConfig.load(path)


def test_two_lines_are_a_configuration(tmp_path: Path) -> None:
    found = load(tmp_path, '[data]\nitems = "items.jsonl"\n')
    assert found.data.items == "items.jsonl"
    assert found.base == "idiolect-base"
    assert found.evaluate.controls


def test_one_name_is_a_list_of_one(tmp_path: Path) -> None:
    found = load(tmp_path, '[data]\nitems = "x"\ngeneral = "books/"\ntext = ["a", "b"]\n')
    assert found.data.general == ("books/",)
    assert found.data.text == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[data]\nitems = "x"\nquries = "q"\n', "line 3: unknown key data.quries (did you mean"),
        ('sede = 1\n[data]\nitems = "x"\n', "line 1: unknown key sede (did you mean seed?)"),
        (
            '[data]\nitems = "x"\n[tunne]\nsteps = 3\n',
            "line 3: unknown key tunne (did you mean tune",
        ),
        (
            '[data]\nitems = "x"\n[audit]\nxyz = 3\n',
            "unknown key audit.xyz (known: max_rows, method, phrases)",
        ),
        (
            '[data]\nitems = "x"\n[pretrain]\nsteps = 0\n',
            "line 4: pretrain.steps is 0, it should be grea",
        ),
        (
            '[data]\nitems = "x"\n[pretrain]\ntrain = "row"\n',
            "line 4: pretrain.train is 'row', it should",
        ),
        ('[data]\nitems = "x"\npretrain.steps = "many"\n', "line 3: "),
        (
            '[data]\nitems = "x"\n[pretrain]\nquantization = "nf4"\n',
            "line 4: pretrain.quantization is 'nf4', it needs train = 'rows+lora'",
        ),
        ('[data]\nitems = "x"\n[adapt]\nsteps = 3\n', "key adapt (did you mean pretrain?)"),
        ('[data]\nitems = "x"\njudgements = "y"\n', "data.judgements (did you mean qrels?)"),
        ('[data]\nitems = "x"\n[audit]\nrows = 3\n', "audit.rows (did you mean max_rows?)"),
        ('[data]\nitems = "x"\n[distill]\npasses = 3\n', "(did you mean epochs?)"),
        ('[data]\nitems = "x"\n[tune]\nlength = 3\n', "(did you mean max_length?)"),
        ('[data]\nitems = "x"\n[tune]\nbatch = 3\n', "(did you mean batch_size?)"),
        ('[data]\nitems = "x"\n[pretrain]\nreplay = 0.1\n', "(did you mean replay_share?)"),
        ('[data]\ngeneral = "x"\n', "line 1: data.items is missing (items: The catalogue"),
        ("", "data is missing"),
        ("[data\n", "line 1"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 1: .*; line 3: .*; line 5: "):
        load(tmp_path, 'a = 1\n[data]\nb = 2\nitems = "x"\nc = 3\n')


def test_a_missing_configuration(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*nowhere\.toml"):
        PipelineConfig.load(tmp_path / "nowhere.toml")


def test_a_folder_instead_of_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder \(write one with idiolect init .*\)"):
        PipelineConfig.load(tmp_path)
    (tmp_path / "idiolect.toml").touch()
    with pytest.raises(ConfigError, match=r"is a folder \(give .*idiolect\.toml\)"):
        PipelineConfig.load(tmp_path)


def test_a_base_may_be_next_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert find_base("model", tmp_path) == str(tmp_path / "model")
    (tmp_path / "model.gguf").touch()
    assert find_base("model.gguf", tmp_path) == str(tmp_path / "model.gguf")
    assert find_base("someone/model", tmp_path) == "someone/model"


def test_a_base_in_a_package_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        packaged_models.PACKAGED,
        "tiny",
        packaged_models.PackagedModel("tiny-model", "no_such_module_here", "model"),
    )
    with pytest.raises(MissingDependencyError, match="pip install tiny-model"):
        hub.locate(find_base("tiny", tmp_path), ())


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/idiolect.toml")), ids=str)
def test_the_examples_are_configurations(path: Path) -> None:
    assert PipelineConfig.load(path).data.queries


def test_tuning_takes_the_objectives_that_train_on_text() -> None:
    from idiolect.pipeline.stages.tune_stage import TuneSettings

    assert TuneSettings(objective="titles").objective == "titles"
    with pytest.raises(ValueError, match="'pairs' does not train on text alone"):
        TuneSettings(objective="pairs")
    with pytest.raises(ConfigError, match="unknown objective 'title'"):
        TuneSettings(objective="title")
