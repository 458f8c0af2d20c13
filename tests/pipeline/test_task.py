"""A task judges the models of a run: heads on each language model, and a paired test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from idiolect.cli.run import results
from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError, InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.downstream_task import read_task
from idiolect.pipeline.report.verdict import judge
from idiolect.pipeline.settings import DataSettings, PipelineSettings
from idiolect.pipeline.stages.evaluate_task_stage import STAGE
from idiolect.tasks.tag.tagged_texts import read_tagged_texts
from idiolect.tasks.tag.tagging_metrics import score_spans
from idiolect.tasks.tag.text_tagger import TextTagger
from idiolect.tasks.task_model import task_config
from pipeline.shop import write


@pytest.fixture(scope="module")
def metrics(finished: Path) -> dict:
    return json.loads((finished / "run" / "metrics.json").read_text())


def test_every_language_model_of_a_run_is_judged(finished: Path, metrics: dict) -> None:
    found = metrics["evaluate_task"]
    assert found["task"] == "classify"
    assert (found["train_texts"], found["test_texts"], found["repeated"]) == (16, 21, 1)
    names = [one["name"] for one in found["systems"]]
    assert names == [
        *("base", "vocabulary", "pretraining", "untrained"),
        *("plain.pretraining", "random.pretraining"),
    ]
    for system in found["systems"]:
        paths = [
            finished / "run/stages/evaluate_task/heads" / f"{system['name']}.{seed}.json"
            for seed in (0, 1)
        ]
        counts = [np.array(json.loads(path.read_text())["counts"]) for path in paths]
        assert all(one.shape == (21, 2) for one in counts)
        assert system["values"] == pytest.approx([one[:, 0].mean() for one in counts])
        assert system["mean"] == pytest.approx(np.mean(system["values"]))
        assert system["deviation"] == pytest.approx(np.std(system["values"], ddof=1))
    by_name = {one["name"]: one for one in found["systems"]}
    assert by_name["base"]["values"] != by_name["pretraining"]["values"]
    assert {one["name"] for one in found["baselines"]} == {
        "TF-IDF + logistic regression",
        "majority label",
    }
    tested = {(row["first"], row["second"]): row for row in found["significance"]}
    row = tested["plain.pretraining", "pretraining"]
    gap = by_name["pretraining"]["mean"] - by_name["plain.pretraining"]["mean"]
    assert row["difference"] == pytest.approx(gap)
    assert row["low"] <= row["difference"] <= row["high"]
    heads = finished / "run/stages/evaluate_task/heads"
    assert not [path for path in heads.iterdir() if path.is_dir()], "trained heads are left"


def test_the_report_shows_the_task(finished: Path, metrics: dict) -> None:
    page = (finished / "run" / "report.html").read_text()
    assert 'id="task"' in page
    assert "1 texts of the test are also in the training file" in page
    found = metrics["evaluate_task"]
    for system in [*found["systems"], *found["baselines"]]:
        assert f"{system['mean']:.4f}" in page
    what = {finding.what: finding.figures for finding in judge(metrics).findings}
    assert "21 texts, 2 seeds" in what["The task, before and after"]
    table = next(one for one in results(metrics) if str(one.title).startswith("The task"))
    labels = {one["label"] for one in [*found["systems"], *found["baselines"]]}
    assert labels <= set(table.columns[0].cells)


def test_a_killed_stage_keeps_its_finished_heads(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads of an earlier process are not trained again."""
    from idiolect.pipeline.stage import Work
    from idiolect.pipeline.stages import evaluate_task_stage as stage

    heads = tmp_path / "heads"
    heads.mkdir()
    kept = finished / "run/stages/evaluate_task/heads/base.0.json"
    (heads / kept.name).write_bytes(kept.read_bytes())

    class _Refuses:
        def fit(self, *_: object, **__: object) -> None:
            raise AssertionError("trained again")

    work = Work.__new__(Work)
    object.__setattr__(work, "folder", tmp_path)
    system = type("S", (), {"name": "base"})()
    found = stage._tested(work, _Refuses(), system, 0)  # type: ignore[arg-type]
    assert found.tolist() == json.loads(kept.read_text())["counts"]


@pytest.fixture
def tagged(tmp_path: Path) -> tuple[Path, Path]:
    train, test = tmp_path / "train.conll", tmp_path / "test.conll"
    train.write_text("zorb\tB-X\nis\tO\n\nthe\tO\nzorb\tB-X\nlamp\tI-X\n\n" * 4)
    test.write_text("a\tO\nzorb\tB-X\n\nno\tO\nlamp\tO\n\nzorb\tB-X\nlamp\tI-X\n\n")
    return train, test


def test_tagging_is_counted_as_strict_f1(finished: Path, tagged: tuple[Path, Path]) -> None:
    """The counts of a tagger's texts have the micro-averaged F1 as their ratio."""
    task = read_task(*tagged, max_unreadable=0)
    assert (task.name, task.labels) == ("tag", ("X",))
    encoder = Encoder.load(finished / "run/stages/tune/model")
    config = task_config("full", learning_rate=1e-2, seed=3)
    out = tagged[0].parent / "out"
    counts = task.fit(encoder, output_dir=out, adaptation="full", epochs=6, config=config)
    model = TextTagger.load(out / "model")
    truth = read_tagged_texts(tagged[1])
    found = score_spans([one.spans or () for one in truth], [f.spans for f in model.predict(truth)])
    right, judged = counts.sum(0)
    assert found.micro.f1 > 0
    assert right / judged == pytest.approx(found.micro.f1)
    own = task.baselines()["training dictionary"].sum(0)
    assert own.tolist() == [4, 4]


def test_tasks_that_cannot_judge_are_refused(tmp_path: Path, tagged: tuple[Path, Path]) -> None:
    (tmp_path / "idiolect.toml").write_text('[data]\nitems = "x"\ntask_train = "y"\n')
    with pytest.raises(ConfigError, match="task_test is missing"):
        PipelineSettings.load(tmp_path / "idiolect.toml")
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    write(tmp_path / "test.jsonl", [{"text": "a", "label": "z"}])
    write(tmp_path / "items.jsonl", [{"id": "1", "text": "a"}])
    settings = DataSettings(items="items.jsonl", task_train="train.jsonl", task_test="test.jsonl")
    with pytest.raises(InputError, match="the label 'z', which"):
        Data(settings, tmp_path).check()
    (tmp_path / "other.conll").write_text("a\tB-Y\n\n")
    with pytest.raises(InputError, match="the label 'Y', which"):
        read_task(tagged[0], tmp_path / "other.conll", max_unreadable=0)


def test_the_stage_reads_its_files_alone() -> None:
    """A change of the task's files repeats no other stage."""
    assert STAGE.inputs == ("task_train", "task_test")
