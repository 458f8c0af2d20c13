"""A task judges the models of a run: heads on each language model, and a paired test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idiolect.cli.run import results
from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError, InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.downstream_task import DownstreamTask, read_task
from idiolect.pipeline.report.verdict import judge
from idiolect.pipeline.settings import DataSettings, PipelineSettings
from idiolect.pipeline.stages.evaluate_task_stage import STAGE
from idiolect.tasks.tag.tagged_texts import read_tagged_texts
from idiolect.tasks.tag.tagging_metrics import score_spans
from idiolect.tasks.tag.text_tagger import TextTagger
from idiolect.tasks.task_model import task_config
from idiolect.text.skipped import Skipped, summary
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
    assert "Texts of the test that are also in the training file: 1." in page
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


def test_what_a_kill_left_of_a_finished_head_is_removed(finished: Path, tmp_path: Path) -> None:
    """A process killed after it wrote a result leaves the model that the result came from."""
    from idiolect.pipeline.stage import Work
    from idiolect.pipeline.stages import evaluate_task_stage as stage

    kept = finished / "run/stages/evaluate_task/heads/base.0.json"
    (tmp_path / "heads/base.0/model").mkdir(parents=True)
    (tmp_path / "heads" / kept.name).write_bytes(kept.read_bytes())
    work = Work.__new__(Work)
    object.__setattr__(work, "folder", tmp_path)
    stage._tested(work, None, type("S", (), {"name": "base"})(), 0)  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "heads").iterdir()] == [kept.name]


def _read(train: Path, test: Path, skipped: Skipped | None = None) -> DownstreamTask:
    return read_task(
        [train], [test], max_unreadable=0.1, skipped=Skipped() if skipped is None else skipped
    )


@pytest.fixture
def tagged(tmp_path: Path) -> tuple[Path, Path]:
    train, test = tmp_path / "train.conll", tmp_path / "test.conll"
    train.write_text("zorb\tB-X\nis\tO\n\nthe\tO\nzorb\tB-X\nlamp\tI-X\n\n" * 4)
    test.write_text("a\tO\nzorb\tB-X\n\nno\tO\nlamp\tO\n\nzorb\tB-X\nlamp\tI-X\n\n")
    return train, test


def test_tagging_is_counted_as_strict_f1(finished: Path, tagged: tuple[Path, Path]) -> None:
    """The counts of a tagger's texts have the micro-averaged F1 as their ratio."""
    task = _read(*tagged)
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
        _read(tagged[0], tmp_path / "other.conll")


def test_the_stage_reads_its_files_alone() -> None:
    """A change of the task's files repeats no other stage."""
    assert STAGE.inputs == ("task_train", "task_test")


def _colours(path: Path) -> Path:
    """Twenty texts of each of two labels, and one of a third that is first in the alphabet."""
    rows = [{"text": "odd one", "label": "a"}]
    rows += [{"text": f"green leaf {n}", "label": "b"} for n in range(20)]
    write(path, [*rows, *({"text": f"red brick {n}", "label": "c"} for n in range(20))])
    return path


def test_a_draw_of_texts_keeps_every_label_it_can(tmp_path: Path) -> None:
    task = _read(*[_colours(tmp_path / name) for name in ("train.jsonl", "test.jsonl")])
    for seed in range(20):
        assert {one.label for one in task.drawn(3, seed).train} == {"a", "b", "c"}
        assert len({one.label for one in task.drawn(2, seed).train}) == 2
    assert len(task.drawn(12, 0).train) == 12
    assert task.drawn(12, 0).train != task.drawn(12, 1).train


def test_the_tfidf_baseline_knows_the_labels_of_the_drawn_texts(tmp_path: Path) -> None:
    """A label that was not drawn does not shift the names of the others."""
    task = _read(*[_colours(tmp_path / name) for name in ("train.jsonl", "test.jsonl")])
    drawn = replace(task, train=[one for one in task.train if one.label != "a"])
    right, judged = drawn.baselines()["TF-IDF + logistic regression"].sum(0)
    assert (right, judged) == (40, 41)


def test_the_files_of_a_folder_are_one_task(tmp_path: Path) -> None:
    for name in ("train/1.jsonl", "train/2.jsonl", "test.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        _colours(tmp_path / name)
    write(tmp_path / "items.jsonl", [{"id": "1", "text": "a"}])
    settings = DataSettings(items="items.jsonl", task_train="train", task_test="test.jsonl")
    task = Data(settings, tmp_path).task
    assert task is not None
    assert (len(task.train), len(task.test)) == (82, 41)


def test_texts_without_a_label_are_counted_and_many_are_an_error(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": "xy"[n % 2]} for n in range(20)]
    train, many = tmp_path / "train.jsonl", tmp_path / "many.jsonl"
    write(train, [*rows, {"text": "more", "label": None}])
    skipped = Skipped()
    assert len(_read(train, train, skipped).train) == 20
    assert summary(skipped) == "2 no label (train.jsonl line 21, train.jsonl line 21)"
    write(many, [*rows, *[{"text": "more", "label": 1.0}] * 20])
    with pytest.raises(InputError, match="20 of 40 texts cannot be used: 20 no label"):
        _read(train, many)


def test_a_test_without_spans_is_refused_before_any_training(
    tmp_path: Path, tagged: tuple[Path, Path]
) -> None:
    (tmp_path / "bare.conll").write_text("no\tO\nlamp\tO\n\n")
    with pytest.raises(InputError, match="has no spans"):
        _read(tagged[0], tmp_path / "bare.conll")
