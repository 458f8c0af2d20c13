"""Stages: found by their files, ordered by what they depend on, and complete in one object."""

from __future__ import annotations

import itertools
import json
import logging
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from encoding.models import tiny_encoder
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import TextReader
from idiolect.errors import ConfigError
from idiolect.models.language_model import LanguageModel
from idiolect.pipeline import encoder_choice
from idiolect.pipeline.data import Data
from idiolect.pipeline.judged_tests import describe, unseen_queries
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.run import run
from idiolect.pipeline.settings import DataSettings, SettingsTable
from idiolect.pipeline.stage import Stage, Work
from idiolect.pipeline.stage_graph import all_stages, in_order, measured_systems, stages_of
from idiolect.pipeline.stage_models import load_encoder, needs_whitening
from idiolect.pipeline.stages import index_stage, tune_stage
from idiolect.pipeline.stages.pretrain_stage import PretrainSettings, training_steps
from idiolect.ranking.evaluation.judged_collection import JudgedCollection
from pipeline.shop import change, open_shop, write

TOY = '''\
"""A stage that counts the items with a word in them, and adds the distilled model as a system."""

import shutil
from typing import TypedDict

from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import Control, Stage, Work
from idiolect.pipeline.systems import MeasuredSystem


class ToySettings(SettingsTable):
    """Counting."""

    word: str = "lamp"
    """The word to count."""


class ToyMetrics(TypedDict):
    count: int


def toy(work: Work[ToySettings]) -> ToyMetrics:
    shutil.copytree(work.model, work.folder / "model", dirs_exist_ok=True)
    return {"count": sum(work.settings.word in text for text in work.data.texts.values())}


STAGE = Stage(
    name="toy",
    run=toy,
    settings=ToySettings,
    metrics=ToyMetrics,
    inputs=("items",),
    model_from="distill",
    systems=(MeasuredSystem(name="toy", label="a toy", against=("base",)),),
    controls=(Control(name="random", model_from="random.distill"),),
)
'''
RUN = """\
import sys
from pathlib import Path
from idiolect.pipeline import stages
stages.__path__.append(sys.argv[1])
from idiolect.errors import IdiolectError
from idiolect.pipeline.report import charts
from idiolect.pipeline.run import run
charts._chart = lambda *_: charts.Chart("<svg></svg>", "<svg></svg>")
config = Path(sys.argv[2])
for change in ("", *sys.argv[3:]):
    config.write_text(config.read_text().replace(*change.split(">"))) if ">" in change else None
    try:
        run(config)
    except IdiolectError as error:
        print(error, file=sys.stderr)
    print("-- end", file=sys.stderr)
"""


def run_with(stages: Path, config: Path, *changes: str) -> list[list[str]]:
    """Run with the stages of another folder, and again after each change, in one process.

    Return what each run reported.
    """
    command = [sys.executable, "-c", RUN, str(stages), str(config), *changes]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [part.splitlines() for part in done.stderr.split("-- end\n")[:-1]]


def metrics(run_folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_folder / "metrics.json").read_text())
    return found


@pytest.mark.slow
def test_a_new_file_is_a_new_stage(tmp_path: Path) -> None:
    stages = tmp_path / "more"
    stages.mkdir()
    (stages / "toy_stage.py").write_text(TOY)
    (tmp_path / "shop").mkdir()
    config = open_shop(tmp_path / "shop", controls=True)
    config.write_text(config.read_text() + '[toy]\nword = "zorblaxine"\n')
    reported, unchanged, changed, wrong = run_with(
        stages, config, "nothing", "zorblaxine>lamp", "word =>wrd ="
    )
    assert any(line.startswith("toy: ") for line in reported), reported
    assert any(line.startswith("random.toy: ") for line in reported), reported
    found = metrics(tmp_path / "shop" / "run")
    assert found["toy"] == found["random.toy"] == {"count": 18}, "of lamps"
    system = next(one for one in found["evaluate"]["systems"] if one["name"] == "toy")
    assert system["search"].keys() >= {"ndcg@10"}
    compared = {(one["first"], one["second"]) for one in found["evaluate"]["significance"]}
    assert ("base", "toy") in compared
    manifest = json.loads((tmp_path / "shop" / "run" / "manifest.json").read_text())
    assert manifest["stages"]["toy"]["fingerprint"]

    assert unchanged
    assert all(line.endswith(": unchanged") for line in unchanged)
    again = [line for line in changed if not line.endswith(": unchanged")]
    names_again = [*dict.fromkeys(line.split(":")[0] for line in again)]  # progress repeats them
    assert names_again == ["toy", "random.toy", "evaluate", "report"]
    assert "unknown key toy.wrd (did you mean word?)" in wrong[0]


def toy(name: str, **more: Any) -> Stage[Any]:
    return Stage(name=name, run=lambda _: {}, settings=SettingsTable, metrics=dict, **more)


def names(stages: Any) -> list[str]:
    return [stage.name for stage in stages]


def test_stages_come_after_those_they_depend_on() -> None:
    a, b, last = toy("a", model_from="b"), toy("b"), toy("last", after=("*",))
    assert names(in_order([last, a, b])) == ["b", "a", "last"]
    beyond = toy("beyond", after=("last",))
    assert names(in_order([last, beyond, a, b])) == ["b", "a", "last", "beyond"]


def test_impossible_orders_are_refused() -> None:
    with pytest.raises(ConfigError, match="a depends on nothing, which does not exist"):
        in_order([toy("a", after=("nothing",))])
    with pytest.raises(ConfigError, match="a, b depend on one another in a circle"):
        in_order([toy("a", after=("b",)), toy("b", model_from="a")])


def test_controls_are_run_if_a_stage_needs_them() -> None:
    data = {"data": {"items": "x"}}
    with_controls = stages_of(PipelineConfig.model_validate(data))
    plain = stages_of(PipelineConfig.model_validate(data | {"evaluate": {"controls": False}}))
    with_histories = {"items": "x", "histories": "y"}
    whole = stages_of(PipelineConfig.model_validate(data | {"data": with_histories}))
    assert {"recommend", "evaluate_recommend"} == set(names(whole)) - set(names(with_controls))
    with_task = {"items": "x", "task_train": "y", "task_test": "z"}
    whole = stages_of(PipelineConfig.model_validate(data | {"data": with_task}))
    assert {"evaluate_task"} == set(names(whole)) - set(names(with_controls))
    assert names(all_stages())[:-3] == names(plain)
    assert names(plain) == ["audit", "extend", "distill", "pretrain", "tune", "index", "evaluate"]
    extra = [name for name in names(with_controls) if "." in name]
    assert extra[:2] == ["plain.pretrain", "plain.tune"]
    assert extra[2:] == [f"random.{name}" for name in names(plain)[1:5]]
    assert set(with_controls[-1].after) == set(names(with_controls)) - {"evaluate"}
    controls = [one.name for one in measured_systems(with_controls) if one.control]
    assert controls[:2] == ["untrained", "plain.pretraining"]


def test_stages_declare_the_metrics_they_write(finished: Path) -> None:
    found = metrics(finished / "run")
    for stage in stages_of(PipelineConfig.load(finished / "idiolect.toml")):
        assert found[stage.name].keys() == stage.metrics.__annotations__.keys() | set(
            stage.metrics.__required_keys__
        ), stage.name


def test_every_key_of_every_stage_has_a_description() -> None:
    for stage in all_stages():
        for name, field in stage.settings.model_fields.items():
            assert field.description, f"{stage.name}.{name}"


def test_reading_a_configuration_is_light() -> None:
    code = (
        "import sys, idiolect.pipeline.pipeline_config; "
        "print(sorted({'torch', 'tokenizers', 'numba', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def work_for(folder: Path, base: str, **more: Any) -> Work[Any]:
    settings = DataSettings(items="items.jsonl")
    return Work(
        config=PipelineConfig.model_validate({"data": {"items": "items.jsonl"}}),
        settings=SettingsTable(),
        data=Data(settings, folder),
        base=base,
        folder=folder / "work",
        done={},
        **{"model": "", **more},
    )


def test_the_base_is_not_loaded_to_read_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny_encoder("llama", pooling="last", max_length=20)
    encoder.save(tmp_path / "base")
    encoder.model.save(tmp_path / "model")
    (tmp_path / "items.jsonl").touch()
    loaded = []
    load = LanguageModel.load

    def remember(source: Any, **options: Any) -> LanguageModel:
        loaded.append(str(source))
        return load(source, **options)

    monkeypatch.setattr(LanguageModel, "load", remember)
    found = load_encoder(work_for(tmp_path, str(tmp_path / "base")), str(tmp_path / "model"))
    assert found.layout == replace(encoder.layout, normalize=True)
    assert loaded == [str(tmp_path / "model")]


@pytest.mark.parametrize(
    ("settings", "static"),
    [("", True), ("layers = 0", True), ('layers = "all"', False), ('pooling = "last"', False)],
)
def test_a_causal_model_encodes_with_its_embedding_rows_by_default(
    settings: str, static: bool, tmp_path: Path
) -> None:
    path = open_shop(tmp_path)
    change(path, '[encoder]\nmax_length = 32\nlayers = "all"', f"[encoder]\n{settings}")
    config = PipelineConfig.load(path)
    work = replace(work_for(tmp_path, str(tmp_path / "model")), config=config)
    encoder = load_encoder(work, work.base)
    assert encoder.model.network.context_free is static
    assert not load_encoder(work, work.base, whole=True).model.network.context_free
    assert needs_whitening(work)


def test_a_published_encoder_encodes_with_all_its_layers(tmp_path: Path) -> None:
    tiny_encoder("llama").save(tmp_path / "base")
    (tmp_path / "items.jsonl").touch()
    work = work_for(tmp_path, str(tmp_path / "base"))
    assert not load_encoder(work, work.base).model.network.context_free
    assert not needs_whitening(work)


def test_held_out_queries_may_have_unusual_line_breaks(tmp_path: Path) -> None:
    """A query that was copied from a page may contain U+2028, which JSON does not escape."""
    items = [{"id": f"p{n}", "text": f"lamp {n}"} for n in range(20)]
    pairs = [{"query": f"a\u2028light\x85 {n}", "document": f"lamp {n}"} for n in range(20)]
    write(tmp_path / "items.jsonl", items)
    write(tmp_path / "pairs.jsonl", pairs)
    data = Data(DataSettings(items="items.jsonl", pairs="pairs.jsonl"), tmp_path)
    _, kept = tune_stage._hold_out(data.pairs(), data, 0)
    lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in kept.items()]
    (tmp_path / tune_stage._HELD_OUT_PAIRS).write_text("".join(lines))
    assert tune_stage.held_out_queries(tmp_path) == kept
    assert len(kept) == 2


def test_answers_of_training_pairs_are_seen() -> None:
    texts = {name: name for name in ("a", "b", "c")}
    grades = {"q1": {"a": 1.0, "b": 0.0}, "q2": {"b": 1.0}, "a": {"c": 1.0}, "q3": {"c": 0.0}}
    collection = JudgedCollection.join(texts, {q: q for q in grades}, grades)
    assert unseen_queries(collection, {"b"}) == ["q1", "a"]
    assert unseen_queries(collection, {"a"}) == ["q2"]  # of similar items, the query counts too
    size = describe(collection, {"b"})
    assert size is not None
    assert (size["queries"], size["unseen"]) == (3, 2)


def test_items_are_tokenized_once(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "shop")
    folder = tmp_path / "shop"
    (folder / "work").mkdir()
    (folder / "run" / "stages" / "tune" / "kept.jsonl").write_text("")  # nothing to choose by
    texts: list[str] = []
    read = TextReader.read

    def remember(self: TextReader, some: Any, kind: Any, counts: Any) -> Any:
        texts.extend(some if kind == "document" else [])
        return read(self, some, kind, counts)

    monkeypatch.setattr(TextReader, "read", remember)
    tuned = folder / "run" / "stages" / "tune"
    work = work_for(folder, str(folder / "model"), model=str(tuned / "model"))
    figures = index_stage.index(replace(work, done={"tune": tuned}))
    assert len(texts) == figures["items"] == 40


def test_tuning_may_keep_the_rows_of_the_language_model(tmp_path: Path) -> None:
    base = tiny_encoder("llama")
    base.model.save(tmp_path / "base")
    items = [{"id": str(n), "text": text} for n, text in enumerate(("a b c", "c d e f", "g h i"))]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    work = work_for(tmp_path, str(tmp_path / "base"), model=str(tmp_path / "base"))
    work.folder.mkdir()
    tune_stage.tune(replace(work, settings=tune_stage.TuneSettings(steps=1, train="rows")))
    tuned = Encoder.load(work.folder / "model")
    assert torch.equal(tuned.model.network.tokens.weight, base.model.network.tokens.weight)
    assert tuned.projection is not None


@pytest.mark.parametrize(("best", "stage"), [("plain.tuning", "plain.tune"), ("base", "index")])
def test_the_index_uses_the_best_encoder_on_held_out_queries(
    best: str, stage: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "shop")
    folder, stages = tmp_path / "shop", tmp_path / "shop" / "run" / "stages"
    shutil.rmtree(stages / "index")
    (stages / "index").mkdir()
    measured = iter(["tuning", "plain.tuning", "base"])

    def evaluate(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(means={"ndcg@10": 0.9 if next(measured) == best else 0.3})

    monkeypatch.setattr(encoder_choice, "evaluate", evaluate)
    work = work_for(folder, str(folder / "model"), model=str(stages / "tune" / "model"))
    done = {name: stages / name for name in ("tune", "plain.tune")}
    work = replace(work, folder=stages / "index", done=done)
    assert index_stage.index(work)["encoder"] == best
    assert index_stage.index_encoder(folder / "run") == stages / stage / "model"
    with index_stage.open_index(folder / "run") as index:
        encoder = Encoder.load(stages / stage / "model")
        (vector,) = encoder.encode([work.data.texts["mivotrexol-3"]], prompt_name="document")
        stored = index.store.fetch(["mivotrexol-3"], vectors=True)["mivotrexol-3"].vector
        assert stored == pytest.approx(vector, abs=1e-5)


def test_cut_texts_are_counted_and_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without changing the level of a logger, which others share."""
    config = open_shop(tmp_path)
    change(config, "[encoder]\nmax_length = 32", "[encoder]\nmax_length = 8")

    def refuse(*_: Any) -> None:
        raise AssertionError("a logger's level was changed")

    monkeypatch.setattr(logging.Logger, "setLevel", refuse)
    figures = metrics(run(config))
    assert figures["index"]["cut"] == 40
    assert any("longer than the encoder reads" in note for note in figures["evaluate"]["notes"])
    said = [record.message for record in caplog.records if "idiolect.encoding" in record.name]
    assert said == []


def test_a_small_corpus_is_read_ten_times() -> None:
    """Ten passes of 4 bytes a token, 2 × 8 tokens a step; a large corpus has 300 steps."""
    settings = PretrainSettings(batch_size=2)
    assert training_steps(settings, ["x" * 64], 8) == 10
    assert training_steps(settings, ["x" * 64, "é" * 4], 8) == math.ceil(10 * 72 / 64)
    assert training_steps(settings, ["x"], 8) == 1
    assert training_steps(settings, itertools.repeat("x" * 64), 8) == 300
    assert training_steps(PretrainSettings(steps=7), ["x"], 8) == 7
