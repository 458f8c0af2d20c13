"""The pipeline: its outputs, what it repeats, how it resumes, and its errors."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from encoding.models import tiny_encoder
from idiolect.cli.run import results
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import Pair
from idiolect.errors import CheckpointError, ConfigError, IdiolectError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.pipeline.data import Data
from idiolect.pipeline.language import some_windows
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.run import base_fingerprint, run
from idiolect.pipeline.run_directory import FORMAT, RunDirectory
from idiolect.pipeline.settings import DataSettings, SettingsTable
from idiolect.pipeline.stage import Work
from idiolect.pipeline.stage_graph import stages_of
from idiolect.pipeline.stage_models import load_encoder
from idiolect.pipeline.stages.index_stage import graph_curve, open_index
from idiolect.pipeline.stages.tune_stage import without_tests
from idiolect.text.corpus import Corpus
from idiolect.text.file_record import FileRecord
from pipeline.runs import FORKS, hold, killed_at_the_first_record, run_on_full_disk, start
from pipeline.shop import COMMON, KINDS, change, open_shop, table, write


@pytest.fixture
def shop(finished: Path, tmp_path: Path) -> Path:
    """A finished run that may be changed; the path of its configuration."""
    shutil.copytree(finished, tmp_path / "shop")
    return tmp_path / "shop" / "idiolect.toml"


def metrics(run: Path, step: str) -> dict[str, Any]:
    return json.loads((run / "stages" / step / "metrics.json").read_text())


def finished_when(run: Path) -> dict[str, int]:
    """When each stage was finished."""
    paths = (run / "stages").iterdir()
    return {path.name: (path / "metrics.json").stat().st_mtime_ns for path in paths}


def repeated(run_folder: Path, config: Path) -> set[str]:
    before = finished_when(run_folder)
    run(config)
    after = finished_when(run_folder)
    return {name for name in after if after[name] != before.get(name)}


def test_every_stage_writes_what_the_report_needs(finished: Path) -> None:
    folder = finished / "run"
    stages = stages_of(PipelineConfig.load(finished / "idiolect.toml"))
    whole = json.loads((folder / "metrics.json").read_text())
    assert list(whole) == [stage.name for stage in stages]
    assert {path.name for path in (folder / "stages").iterdir()} == set(whole)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["stages"]) == set(whole)
    assert (folder / "report.html").exists()
    assert "items.jsonl" in (folder / "idiolect.toml").read_text()
    leftovers = [path.name for path in folder.rglob("checkpoint-*")]
    assert not leftovers


def test_the_promises_are_measured(finished: Path) -> None:
    found = metrics(finished / "run", "evaluate")
    assert found["promises"]["original_rows_identical"]
    assert found["promises"]["documents_changed"] == 0
    assert found["promises"]["documents_checked"] > 60
    assert found["tokens"]["domain"]["saved"] > 0.2


def test_a_changed_row_is_detected(shop: Path) -> None:
    """Even if the record of the stage's files knows the changed file."""
    stage = shop.parent / "run" / "stages" / "tune"
    weights = stage / "model" / "model.safetensors"
    from safetensors.torch import save_file

    tensors = load_file(weights)
    name = next(name for name in tensors if "embed_tokens" in name)
    tensors[name][0, 0] += 1
    save_file(tensors, weights, {"format": "pt"})
    record = FileRecord.of(stage, json.loads((stage / "outputs.json").read_text())["files"])
    (stage / "outputs.json").write_text(json.dumps({"files": record.files}))
    shutil.rmtree(shop.parent / "run" / "stages" / "evaluate")
    with pytest.raises(CheckpointError, match="index: the original rows"):
        run(shop)


def test_controls_have_the_same_budget_but_other_tokens(finished: Path) -> None:
    stages = finished / "run" / "stages"
    plain = LanguageModel.load(stages / "plain.tune" / "model")
    base = LanguageModel.load(finished / "model")
    assert len(plain.tokenizer) == len(base.tokenizer)
    main, control = (
        metrics(finished / "run", "pretrain"),
        metrics(finished / "run", "plain.pretrain"),
    )
    extra = metrics(finished / "run", "distill")["tokens"]
    assert control["steps"] == main["steps"] + round(extra / (32 * 2))
    chosen, at_random = (
        {token.text for token in LanguageModel.load(stages / name / "model").extension.added}
        for name in ("extend", "random.extend")
    )
    assert len(chosen) == len(at_random)
    assert chosen != at_random


def test_a_published_encoder_is_imitated(tmp_path: Path) -> None:
    """It has no head to pre-train, so its new tokens learn to reproduce its vectors."""
    config = open_shop(tmp_path, controls=True)
    settings = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    base = LanguageModel.load(tmp_path / "model")
    Encoder(LanguageModel.new(settings, base.tokenizer)).save(tmp_path / "model")
    change(
        config,
        "[pretrain]\nsteps = 4\nmax_length = 32\nbatch_size = 2",
        "[pretrain]\nsteps = 40\nbatch_size = 16",
    )
    change(config, "batch_size = 16", "batch_size = 16\nlearning_rate = 3e-3")
    run(config)
    learned = metrics(tmp_path / "run", "pretrain")
    assert learned["objective"] == "imitation"
    assert learned["loss_last"] < learned["loss_first"]
    assert metrics(tmp_path / "run", "random.pretrain")["steps"] == 40
    assert metrics(tmp_path / "run", "plain.pretrain")["steps"] == 0, "it would be its own teacher"
    control = Encoder.load(tmp_path / "run" / "stages" / "plain.pretrain" / "model")
    assert (
        control.fingerprint
        == Encoder.load(tmp_path / "model").with_changes(max_length=32).fingerprint
    )
    found = metrics(tmp_path / "run", "evaluate")
    assert found["promises"]["original_rows_identical"]
    assert any("reproduce the base's vectors" in note for note in found["notes"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "imitation" in page


def test_systems_are_measured_and_compared(finished: Path) -> None:
    found = metrics(finished / "run", "evaluate")
    systems = {one["name"]: one for one in found["systems"]}
    names = ["bm25", "base", "vocabulary", "pretraining", "tuning", "words", "hybrid"]
    assert list(systems)[:7] == names
    for name in ("bm25", "base", "tuning", "hybrid", "plain.tuning", "random.tuning", "untrained"):
        for test in ("search", "similar"):
            assert 0 <= systems[name][test]["ndcg@10"] <= 1
    # The words of a query stand in the texts of its items alone.
    assert systems["bm25"]["search"]["ndcg@10"] > 0.8
    tests = {(one["test"], one["first"], one["second"]) for one in found["significance"]}
    assert ("search", "plain.tuning", "tuning") in tests
    bits = found["language"]["systems"]
    assert bits["base"]["domain"] > bits["vocabulary"]["domain"] > 0
    widths = [(point["dimensions"], point["trained"]) for point in found["matryoshka"]]
    assert (8, 1.0) in widths
    assert (16, 1.0) in widths


def test_tuned_figures_are_those_of_the_finished_encoder(finished: Path) -> None:
    """Exact search with the saved encoder, by hand."""
    items = [json.loads(line) for line in (finished / "items.jsonl").read_text().splitlines()]
    encoder = Encoder.load(finished / "run" / "stages" / "tune" / "model")
    texts = encoder.encode([item["text"] for item in items], prompt_name="document")
    asked = encoder.encode(list(KINDS.values()), prompt_name="query")
    ranks = []
    for kind, scores in zip(KINDS, asked @ texts.T, strict=True):
        best = sorted(zip(scores, (item["id"] for item in items), strict=True), reverse=True)
        ranks.append(next(i for i, (_, name) in enumerate(best, 1) if name.startswith(kind)))
    systems = {one["name"]: one for one in metrics(finished / "run", "evaluate")["systems"]}
    by_hand = sum(1 / rank for rank in ranks if rank <= 10) / len(ranks)
    assert systems["tuning"]["search"]["mrr@10"] == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize(("system", "mode"), [("words", "lexical"), ("hybrid", "hybrid")])
def test_figures_of_the_index_are_those_of_its_searches(
    finished: Path, system: str, mode: Any
) -> None:
    found = {}
    with open_index(finished / "run") as index:
        assert index.fusion[0] == "weighted"
        for kind, what in KINDS.items():
            ranks = enumerate(index.search(what, 10, mode=mode), 1)
            found[kind] = sum(1 / math.log2(1 + n) for n, hit in ranks if kind in hit.id)
    best = sum(1 / math.log2(1 + rank) for rank in range(1, 11))
    systems = {one["name"]: one for one in metrics(finished / "run", "evaluate")["systems"]}
    by_hand = sum(found.values()) / len(found) / best
    assert systems[system]["search"]["ndcg@10"] == pytest.approx(by_hand, abs=1e-6)


def test_searches_before_and_after(finished: Path) -> None:
    path = finished / "run" / "stages" / "evaluate" / "searches.json"
    shown = json.loads(path.read_text())
    searches = shown["examples"]
    assert shown["kind"] == "search"
    assert {search["query"] for search in searches} == set(KINDS.values())
    assert len(searches[0]["before"]) == len(searches[0]["after"]) == 5
    assert searches[0]["before"][0].keys() == {"id", "title", "text", "grade"}
    with open_index(finished / "run") as index:
        for search in searches:
            hits = index.search(search["query"], 5)  # the default, as a user gets it
            assert [hit["id"] for hit in search["after"]] == [hit.id for hit in hits]


def test_searches_that_miss_are_counted(finished: Path) -> None:
    path = finished / "run" / "stages" / "evaluate" / "searches.json"
    shown = json.loads(path.read_text())
    with open_index(finished / "run") as index:
        ranks = {
            what: next(
                (n for n, hit in enumerate(index.search(what, 100), 1) if kind in hit.id), None
            )
            for kind, what in KINDS.items()
        }
    missed = {what: rank for what, rank in ranks.items() if rank is None or rank > 10}
    assert shown["missed_of"] == [len(missed), len(KINDS)]
    assert {one["query"]: one["rank"] for one in shown["missed"]} == missed


def test_a_base_of_one_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    before = base_fingerprint(str(path))
    path.write_bytes(b"two")
    assert base_fingerprint(str(path)) != before


@pytest.mark.parametrize("name", ["config.json", "vocab.tiktoken", "chat_template.jinja"])
def test_a_base_of_a_directory_is_known_by_its_files(tmp_path: Path, name: str) -> None:
    before = base_fingerprint(str(tmp_path))
    (tmp_path / name).write_text("one")
    assert base_fingerprint(str(tmp_path)) != before


def test_the_index_answers(finished: Path) -> None:
    with open_index(finished / "run") as index:
        assert index.search("quendrifolate", 3, mode="lexical")[0].id.startswith("quendrif")
        assert "quendrifolate-3" not in [hit.id for hit in index.similar("quendrifolate-3", 5)]


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_hybrid_weights_are_fitted_to_held_out_pairs(finished: Path) -> None:
    run = finished / "run"
    kept = dict(_lines(run / "stages" / "tune" / "kept.jsonl"))
    tuned = metrics(run, "tune")
    assert (len(kept), tuned["kept_apart"], tuned["pairs"]) == (2, 2, 18)
    items = {item["title"]: item["id"] for item in _lines(finished / "items.jsonl")}
    assert all(answers == [items[query]] for query, answers in kept.items())
    meaning = metrics(run, "index")["meaning"]
    with open_index(run) as index:
        assert index.fusion == ("weighted", pytest.approx((meaning, 1 - meaning)))
        assert index.fit_fusion(kept)[0] == meaning


def test_a_model_keeps_the_encoder_layout_of_its_base(tmp_path: Path) -> None:
    encoder = tiny_encoder("llama", pooling="weighted", bidirectional=True, max_length=20)
    encoder.project(["a b c", "d e", "f g h i"], whiten=True)
    encoder.save(tmp_path / "base")
    encoder.model.save(tmp_path / "model")
    (tmp_path / "items.jsonl").touch()
    work = Work(
        config=PipelineConfig.model_validate({"data": {"items": "items.jsonl"}}),
        data=Data(DataSettings(items="items.jsonl"), tmp_path),
        base=str(tmp_path / "base"),
        settings=SettingsTable(),
        model="",
        done={},
        folder=tmp_path,
    )
    assert load_encoder(work, str(tmp_path / "model")).fingerprint == encoder.fingerprint


def test_a_second_run_does_nothing(shop: Path) -> None:
    before = (shop.parent / "run" / "report.html").stat().st_mtime_ns
    assert repeated(shop.parent / "run", shop) == set()
    assert (shop.parent / "run" / "report.html").stat().st_mtime_ns == before


def test_stages_that_depend_on_a_change_are_repeated(shop: Path) -> None:
    table(shop.parent / "similar.tsv", ["zorblaxine-0\tzorblaxine-5\t1"])
    shop.write_text(shop.read_text() + "controls = false\n")
    again = repeated(shop.parent / "run", shop)
    # Tuning leaves out what the tests ask, so it depends on them.
    later = {"recommend", "evaluate_recommend", "evaluate_task"}
    assert again == {"tune", "index", "evaluate"} | later
    assert metrics(shop.parent / "run", "evaluate")["similar"]["queries"] == 1
    kept = {path.name for path in (shop.parent / "run" / "stages").iterdir()}
    assert not any("." in name for name in kept), "controls that are not wanted any more"


def test_the_report_shows_no_stage_that_was_taken_out(shop: Path) -> None:
    page = shop.parent / "run" / "report.html"
    assert 'id="task"' in page.read_text()
    lines = shop.read_text().splitlines()
    shop.write_text("\n".join(line for line in lines if not line.startswith("task_")))
    assert repeated(shop.parent / "run", shop) == set()
    assert 'id="task"' not in page.read_text()
    assert "task_train" not in page.read_text()


def test_without_pairs_titles_are_used_and_it_is_noted(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    change(config, 'pairs = "pairs.jsonl"\n', "")
    for name in ("queries", "qrels", "general"):
        line = next(line for line in config.read_text().splitlines() if line.startswith(name))
        change(config, f"{line}\n", "")
    folder = run(config)
    tuned = metrics(folder, "tune")
    assert not tuned["supervised"]
    assert "titles and texts" in tuned["notes"][0]
    found = metrics(folder, "evaluate")
    assert tuned["notes"][0] in found["notes"]
    assert found["search"] is None
    assert any("controls were switched off" in note for note in found["notes"])


def test_pairs_of_the_tests_are_left_out(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    given_away = [
        {"query": f"{what.upper()}  ", "document_id": f"{name}-0"} for name, what in KINDS.items()
    ]
    write(tmp_path / "pairs.jsonl", given_away)
    with pytest.raises(InputError, match=r"tune: all 4 pairs of pairs\.jsonl occur in the tests"):
        run(config)


def test_similar_items_of_the_tests_are_left_out(tmp_path: Path) -> None:
    """In both directions, ignoring case and spaces; other pairs of these items are used."""
    data = Data(PipelineConfig.load(open_shop(tmp_path)).data, tmp_path)
    texts = data.texts
    first, second, other = (texts[f"zorblaxine-{n}"] for n in (0, 1, 5))
    pairs = [Pair(first, second), Pair(f" {second.upper()}", first), Pair(first, other)]
    assert without_tests(pairs, data) == ([pairs[2]], 2)


def test_bits_per_byte_sample_the_whole_corpus(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(f"{n:04} lamp" for n in range(1000)))
    drawn = sorted(int(text[:4]) for text in some_windows(Corpus(tmp_path / "text.txt"), 50))
    assert len(drawn) == 50
    assert drawn[0] < 100
    assert drawn[-1] >= 900


@pytest.mark.parametrize("count", [1, 5, 300])
def test_recall_of_a_graph_excludes_the_query_item(count: int) -> None:
    """All of a few vectors are found; a single vector has no neighbours."""
    vectors = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    _, curve = graph_curve(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert curve[-1]["recall"] == (1.0 if count > 1 else 0.0)


def test_left_out_records_are_reported(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    with (tmp_path / "items.jsonl").open("a") as file:
        file.write('{"id": "x"}\n{"id": "y", "text": " "}\n{"text": "a lamp"}\n')
    with (tmp_path / "qrels.tsv").open("a") as file:
        file.write("zorblaxine\tnowhere\t1\n")
    figures = metrics(run(config), "evaluate")
    reasons = "1 no field, 1 empty, 1 no id"
    assert f"records of the catalogue that were left out: {reasons}" in figures["notes"]
    (note,) = figures["search"]["notes"]
    (shown, *_) = results(json.loads((tmp_path / "run" / "metrics.json").read_text()))
    assert f"search: {note}" in str(shown.caption)


def test_one_item_without_a_title(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    change(config, 'pairs = "pairs.jsonl"\n', "")
    lines = _lines(tmp_path / "items.jsonl")
    write(tmp_path / "items.jsonl", [*lines, {"id": "x", "title": None, "text": "a lamp"}])
    tuned = metrics(run(config), "tune")
    assert tuned["pairs"] + tuned["kept_apart"] == len(lines)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("qrels.tsv", "zorblaxine\tzorblaxine-0\t1\n", "first line of a table names the columns"),
        ("similar.tsv", "a\tb\t1\na\tc\t1\n", "first line names the columns"),
        ("pairs.jsonl", '{"question": "lamp"}\n', "pairs.jsonl"),
    ],
)
def test_all_inputs_are_checked_first(tmp_path: Path, file: str, text: str, words: str) -> None:
    config = open_shop(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(IdiolectError, match="audit: ") as caught:
        run(config)
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert not (tmp_path / "run" / "stages" / "audit").exists()


def test_judgements_without_queries(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    change(config, 'queries = "queries.jsonl"\n', "")
    with pytest.raises(InputError, match="judgements need their queries"):
        run(config)


def test_titles_that_are_tested_are_not_trained_on(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    change(config, 'pairs = "pairs.jsonl"\n', "")
    asked = [{"id": "a", "text": "zorblaxine 3"}, {"id": "b", "text": "a lamp"}]
    write(tmp_path / "queries.jsonl", asked)
    table(tmp_path / "qrels.tsv", ["a\tzorblaxine-3\t1", "b\tquendrifolate-1\t1"])
    tuned = metrics(run(config), "tune")
    assert tuned["left_out"] == 1
    assert tuned["pairs"] + tuned["kept_apart"] == 39


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("items.jsonl", "", "audit: no items in .*items.jsonl"),
        ("items.jsonl", '{"id": "1"}\n', "audit: no items in .*skipped: 1 no field"),
        ("items.jsonl", '{"id": "1", "text": "a b"}\n' * 2, "two items have the id '1'"),
        ("pairs.jsonl", '{"query": "x"}\n', "audit: .*pairs.jsonl, line 1 has no field document"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq\td\tmuch\n", "'much' is not a number"),
    ],
)
def test_bad_data_is_one_line(tmp_path: Path, file: str, content: str, message: str) -> None:
    config = open_shop(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(IdiolectError, match=message) as caught:
        run(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("glossary", ["", "the\n"])
def test_a_corpus_without_terms_is_reported(tmp_path: Path, glossary: str) -> None:
    config = open_shop(tmp_path)
    words = [{"id": str(n), "text": f"{one} {COMMON[n // 2]}"} for n, one in enumerate(COMMON)]
    write(tmp_path / "items.jsonl", words)
    for name in ("pairs", "queries", "qrels", "similar"):
        line = next(one for one in config.read_text().splitlines() if one.startswith(name))
        change(config, f"{line}\n", "")
    if glossary:
        (tmp_path / "terms.txt").write_text(glossary)
        change(config, "[audit]", 'glossary = "terms.txt"\n[audit]')
    with pytest.raises(InputError, match="audit: the corpus has no recurring term") as caught:
        run(config)
    assert ("'the': already one token" in str(caught.value)) == bool(glossary)


@pytest.mark.parametrize("name", ["items", "general", "pairs", "qrels"])
def test_a_missing_input_is_reported(tmp_path: Path, name: str) -> None:
    config = open_shop(tmp_path)
    line = next(line for line in config.read_text().splitlines() if line.startswith(name))
    change(config, line, f'{name} = "nowhere.jsonl"')
    with pytest.raises(InputError, match=f"data.{name}: no such file or folder: .*nowhere.jsonl"):
        run(config)
    assert not (tmp_path / "run").exists()


def test_a_missing_base_is_reported(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    change(config, 'base = "model"', 'base = "./no/such/model"')
    with pytest.raises(InputError, match=r"no such file or directory: \./no/such/model"):
        run(config)


def test_a_run_of_a_newer_version_is_not_changed(shop: Path) -> None:
    manifest = shop.parent / "run" / "manifest.json"
    record = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(record | {"format": FORMAT + 1, "idiolect": "9.0"}))
    with pytest.raises(CheckpointError, match=r"a run of idiolect 9\.0 .*use that version"):
        run(shop)
    assert json.loads(manifest.read_text())["idiolect"] == "9.0"


def test_a_folder_with_other_files_is_not_changed(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds files that do not belong to a run"):
        run(config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_run_that_was_killed_before_its_first_record_is_no_other_file(tmp_path: Path) -> None:
    process = FORKS.Process(target=killed_at_the_first_record, args=(tmp_path / "run",))
    process.start()
    process.join()
    assert process.exitcode == 9
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {".lock", ".manifest.json.new"}
    with RunDirectory(tmp_path / "run").locked("[data]"):
        assert (tmp_path / "run" / "manifest.json").exists()


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    held = FORKS.Event()
    process = FORKS.Process(target=hold, args=(tmp_path / "run", held))
    process.start()
    try:
        assert held.wait(300)
        with pytest.raises(InputError, match=f"process {process.pid} is running in .*run"):
            run(config)
    finally:
        process.kill()
        process.join()
    with RunDirectory(tmp_path / "run").locked(""):
        pass  # a lock ends with the process that held it


def test_a_full_disk(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    process = FORKS.Process(target=run_on_full_disk, args=(config,))
    process.start()
    process.join()
    error = (tmp_path / "error.txt").read_text()
    assert error.startswith(("audit: ", "extend: "))
    assert "\n" not in error
    assert not (tmp_path / "run" / "stages" / "extend").exists()
    run(config)


def test_a_killed_run_resumes_and_ends_identical(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        config = open_shop(folder)
        change(config, "[pretrain]\nsteps = 4", "[pretrain]\nsteps = 260")
    run(whole / "idiolect.toml")
    partial = killed / "run" / "stages" / ".pretrain.partial"
    process = start(killed / "idiolect.toml")
    deadline = time.monotonic() + 300
    while not (partial / "checkpoint-00000100").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert partial.exists(), "it was killed in the middle of a step"
    audited = (killed / "run" / "stages" / "audit" / "metrics.json").stat().st_mtime_ns
    run(killed / "idiolect.toml")
    assert (killed / "run" / "stages" / "audit" / "metrics.json").stat().st_mtime_ns == audited
    for step in ("pretrain", "tune"):
        one, other = (
            load_file(folder / "run" / "stages" / step / "model" / "model.safetensors")
            for folder in (whole, killed)
        )
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one)
    assert metrics(whole / "run", "pretrain") == metrics(killed / "run", "pretrain")


def test_a_finished_stage_that_was_not_yet_renamed(shop: Path) -> None:
    """Killed between the last write and the rename."""
    stages = shop.parent / "run" / "stages"
    (stages / "evaluate").rename(stages / ".evaluate.partial")
    run(shop)
    assert (stages / "evaluate" / "metrics.json").exists()


def test_stages_before_a_change_are_not_repeated(shop: Path) -> None:
    change(shop, "[tune]\nsteps = 3", "[tune]\nsteps = 2")
    shop.write_text(shop.read_text() + "controls = false\n")
    again = repeated(shop.parent / "run", shop)
    later = {"recommend", "evaluate_recommend", "evaluate_task"}
    assert again == {"tune", "index", "evaluate"} | later


def test_config_errors_come_before_any_work(tmp_path: Path) -> None:
    config = open_shop(tmp_path)
    change(config, "[tune]", "[tone]")
    with pytest.raises(ConfigError, match="did you mean tune"):
        run(config)
    assert not (tmp_path / "run").exists()
