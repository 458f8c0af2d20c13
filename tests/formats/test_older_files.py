"""Files of earlier versions, kept under `files/`, are read or refused by name; so are newer ones.

`write_files.py` made them, run with earlier checkouts of the package:

| folder | written |
|---|---|
| unversioned | before every record named its format, which is taken for version 1 |
| graph-labels | when graphs had just lost their labels |
| graph-2 | before graphs on disk had labels again |
| ledger-1 | with the ledger of version 1, and a training run of the same day |
| run-1 | a run of the pipeline of format 1, without its models |
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT
from formats.write_files import FORMATS, TEXTS, main, small_model
from idiolect.encoding.vectors import DiskVectors, Vectors
from idiolect.errors import CheckpointError, ConfigError
from idiolect.models.language_model import LanguageModel
from idiolect.pipeline.report.page import write_report
from idiolect.pipeline.run_directory import FORMAT, RunDirectory
from idiolect.pipeline.settings import PipelineSettings
from idiolect.recommend.recommender import Recommender
from idiolect.search.diskann.array_file import write_arrays
from idiolect.search.diskann.disk.disk_graph import DiskGraph
from idiolect.search.diskann.graph import Graph
from idiolect.search.index import Index
from idiolect.serve.access.api_keys import read_keys
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.terms import Terms
from idiolect.words.word_vectors import WordVectors

FILES = ROOT / "tests" / "formats" / "files"


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[[str, str], Path]:
    """A function that unpacks a format of a version."""

    def unpacked(version: str, name: str) -> Path:
        with tarfile.open(FILES / version / f"{name}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        return tmp_path / name

    return unpacked


def _resume(folder: Path) -> LanguageModel:
    config = TrainingConfig(max_length=8, batch_size=2, save_steps=1)
    begun = LanguageModel.load(folder.parent / "base")
    return pretrain(begun, TEXTS, output_dir=folder, steps=1, train="all", config=config)


READERS: dict[str, Callable[[Path], Any]] = {
    "model": lambda folder: LanguageModel.load(folder).extension,
    "terms": lambda folder: Terms.load(folder / "terms.json").forms,
    "classifier": lambda folder: TextClassifier.load(folder).predict([LabelledText("a lamp")]),
    "recommender": lambda folder: Recommender.load(folder).recommend(["lamp"]),
    "words": lambda folder: WordVectors.load(folder / "words.safetensors").words,
    "graph": lambda folder: Graph.open(folder / "graph"),
    "disk_graph": lambda folder: DiskGraph.open(folder / "graph"),
    "api_keys": lambda folder: read_keys(folder / "keys.json"),
}
RECORDS = {
    "model": ("idiolect.json", "extension.json"),
    "terms": ("terms.json",),
    "classifier": ("classifier.json",),
    "recommender": ("recommender.json",),
    "api_keys": ("keys.json",),
}


@pytest.mark.parametrize("name", READERS)
def test_files_without_a_version_are_read(name: str, unpack: Callable[[str, str], Path]) -> None:
    folder = unpack("unversioned", name)
    for record in RECORDS.get(name, ()):
        if record not in ("idiolect.json", "recommender.json"):  # these two had one
            assert "format" not in json.loads((folder / record).read_text())
    assert READERS[name](folder)


@pytest.mark.parametrize("version", ["unversioned", "graph-labels", "graph-2"])
def test_graphs_answer_as_before(version: str, unpack: Callable[[str, str], Path]) -> None:
    vectors = np.random.default_rng(0).standard_normal((12, 8), dtype=np.float32)
    for name, kind in (("graph", Graph), ("disk_graph", DiskGraph)):
        graph = kind.open(unpack(version, name) / "graph")
        assert graph.search(vectors, 1)[0].ravel().tolist() == list(range(12))


def test_an_index_without_an_encoder_answers(unpack: Callable[[str, str], Path]) -> None:
    with Index.open(unpack("unversioned", "index")) as index:
        assert index.search("garden", top_k=1, mode="lexical")[0].id in "036"
        index.add([{"id": "new", "text": "a rope", "vector": [1.0] * 8}])
        assert len(index) == 10


def test_an_interrupted_training_resumes(
    unpack: Callable[[str, str], Path], tmp_path: Path
) -> None:
    small_model().save(tmp_path / "base")
    folder = unpack("unversioned", "checkpoint")
    _resume(folder)
    assert (folder / "model" / "config.json").is_file()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 1, "the step was not trained again"


def test_a_training_with_other_defaults_is_refused_by_their_names(
    unpack: Callable[[str, str], Path], tmp_path: Path
) -> None:
    small_model().save(tmp_path / "base")
    folder = unpack("ledger-1", "checkpoint")
    with pytest.raises(CheckpointError, match=r"holds another run: weight_decay was 0\.1 and is"):
        _resume(folder)


def test_an_index_of_ledger_1_is_refused(unpack: Callable[[str, str], Path]) -> None:
    folder = unpack("ledger-1", "index")
    before = (folder / "ledger.db").read_bytes()
    with pytest.raises(CheckpointError, match="built by an older idiolect; build the index again"):
        Index.open(folder)
    assert (folder / "ledger.db").read_bytes() == before


def test_a_run_of_format_1_is_named(unpack: Callable[[str, str], Path]) -> None:
    run = unpack("run-1", "run")
    said: list[str] = []
    RunDirectory(run, said.append)
    assert said == [
        f"{run} is a run of an older idiolect (format 1, not 2): every stage is repeated"
    ]
    with pytest.raises(CheckpointError, match="run it again with this version"):
        write_report(run)
    with pytest.raises(ConfigError, match=r"line 10: unknown key data\.judgements"):
        PipelineSettings.load(run / "idiolect.toml")


@pytest.mark.parametrize(
    ("name", "record"), [(name, file) for name, files in RECORDS.items() for file in files]
)
def test_newer_records_are_refused(
    name: str, record: str, unpack: Callable[[str, str], Path]
) -> None:
    path = unpack("unversioned", name) / record
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "format": 99}))
    with pytest.raises(CheckpointError, match=r"format 99, written by a newer .*update idiolect"):
        READERS[name](path.parent)
    path.write_text(json.dumps({**known, "format": "two"}))
    with pytest.raises(CheckpointError, match="its format is 'two'"):
        READERS[name](path.parent)


def test_newer_words_are_refused(unpack: Callable[[str, str], Path]) -> None:
    path = unpack("unversioned", "words") / "words.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["version"] = "99"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(CheckpointError, match="update idiolect"):
        WordVectors.load(path)


def test_newer_graphs_and_ledgers_are_refused(
    unpack: Callable[[str, str], Path], tmp_path: Path
) -> None:
    for kind, reader in (("graph", Graph.open), ("disk graph", DiskGraph.open)):
        write_arrays(tmp_path / "new", kind, 99, {}, {})
        with pytest.raises(CheckpointError, match="is of version 99"):
            reader(tmp_path / "new")
    folder = unpack("unversioned", "index")
    with closing(sqlite3.connect(folder / "ledger.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(CheckpointError, match=r"is of version 99.*update idiolect"):
        Index.open(folder)


def test_a_newer_run_and_configuration_are_refused(
    unpack: Callable[[str, str], Path], tmp_path: Path
) -> None:
    run = unpack("run-1", "run")
    (run / "manifest.json").write_text(json.dumps({"format": FORMAT + 1, "stages": {}}))
    with pytest.raises(CheckpointError, match="use that version"):
        RunDirectory(run)
    config = tmp_path / "idiolect.toml"
    config.write_text('format = 2\n[data]\nitems = "items.jsonl"\n[hyperspace]\nx = 1\n')
    with pytest.raises(CheckpointError, match=r"format 2, written by a newer .*update idiolect"):
        PipelineSettings.load(config)
    config.write_text('format = 1\n[data]\nitems = "items.jsonl"\n')
    assert PipelineSettings.load(config).data.items == "items.jsonl"


def test_newer_training_runs_are_refused(
    unpack: Callable[[str, str], Path], tmp_path: Path
) -> None:
    small_model().save(tmp_path / "base")
    folder = unpack("unversioned", "checkpoint")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(CheckpointError, match="update idiolect"):
        _resume(folder)


def test_vectors_of_a_newer_version_are_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.zeros((1, 2), np.float32))
    record = path.with_name("vectors.npy.json")
    record.write_text(json.dumps({"format": 99, "rows": 1, "dimensions": 2}))
    with pytest.raises(CheckpointError, match="update idiolect"):
        Vectors.open(path)
    with pytest.raises(CheckpointError, match="update idiolect"):
        DiskVectors(path, {"encoder": "x"}, 2)
    assert path.exists()
    assert record.exists()


@pytest.mark.slow
def test_this_version_writes_every_format(tmp_path: Path) -> None:
    """The files that the next version will have to read: each names its version."""
    main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{w.__name__}.tar.gz" for w in FORMATS}
    for name, records in RECORDS.items():
        with tarfile.open(tmp_path / f"{name}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        for record in records:
            assert json.loads((tmp_path / name / record).read_text())["format"] == 1
    shutil.rmtree(tmp_path)
