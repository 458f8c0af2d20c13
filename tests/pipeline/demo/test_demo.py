import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.errors import MissingDependencyError
from idiolect.pipeline.data import Data
from idiolect.pipeline.demo import catalogue as module
from idiolect.pipeline.demo.catalogue import Catalogue
from idiolect.pipeline.demo.demo import general_text, write_demo
from idiolect.pipeline.pipeline_config import PipelineConfig

pytest.importorskip("scipy", reason="the demo reads SciPy")


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue.read()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, write_demo(folder, base="minilm", settings="[tune]\nsteps = 3\n")


def records(folder, name):
    return [json.loads(line) for line in (folder / "data" / name).read_text().splitlines()]


def table(folder, name):
    lines = (folder / "data" / name).read_text().splitlines()
    assert lines[0] == "query-id\tcorpus-id\tscore"
    return [line.split("\t") for line in lines[1:]]


def test_aliases_of_an_object_are_one_item(catalogue):
    assert catalogue.names["numpy.acosh"] == catalogue.names["numpy.arccosh"] == "numpy.arccosh"
    assert "numpy.acosh" not in catalogue.entries
    assert "numpy.acosh" in catalogue.entries["numpy.arccosh"].aliases
    assert catalogue.names["scipy.special.sinc"] == "numpy.sinc"


def test_functions_classes_and_callables_are_items(catalogue):
    kinds = {name: entry.kind for name, entry in catalogue.entries.items()}
    assert kinds["numpy.linalg.eigh"] == "function"
    assert kinds["numpy.sin"] == "function"  # a ufunc
    assert kinds["scipy.special.jv"] == "function"  # a ufunc without a name of its own
    assert kinds["scipy.fft.fft"] == "function"  # an instance of a class of dispatchers
    assert kinds["scipy.stats.beta"] == "function"  # an instance with its own docstring
    assert kinds["numpy.ndarray"] == "class"
    assert kinds["scipy.spatial.KDTree"] == "class"
    assert "numpy.pi" not in kinds
    assert "numpy.linalg" not in kinds


def test_an_instance_with_the_docstring_of_its_class_is_no_item(monkeypatch):
    class Tool:
        """Do what tools do."""

        def __call__(self):
            pass

    toy = types.ModuleType("toy")
    toy.__all__ = ["Tool", "tool"]
    toy.Tool, toy.tool = Tool, Tool()
    Tool.__doc__ = "Do it.\n\nAt length."
    monkeypatch.setitem(sys.modules, "toy", toy)
    assert list(Catalogue.read(("toy",)).entries) == ["toy.Tool"]


def test_see_also_is_resolved_from_the_inner_scope(catalogue):
    related = catalogue.entries["numpy.linalg.eigh"].related
    assert related[0] == "numpy.linalg.eigvalsh"
    assert "scipy.linalg.eigh" in related
    either = catalogue.neighbours()
    assert all(one in either[other] for one in either for other in either[one])
    assert all(one not in others for one, others in either.items())


def test_no_text_has_a_see_also_or_an_address_in_memory(catalogue):
    for entry in catalogue.entries.values():
        headings = [line.strip().casefold() for line in entry.document.splitlines()]
        assert "see also" not in headings, entry.id
        assert " at 0x" not in entry.title


def test_similar_looking_items_are_in_the_same_part(catalogue):
    by_name, by_summary, by_body = {}, {}, {}
    for entry in catalogue.entries.values():
        names = (entry.id, *entry.aliases)
        for name in names:
            by_name.setdefault(name.rpartition(".")[2].casefold(), set()).add(entry.tested)
        by_summary.setdefault(entry.summary, set()).add(entry.tested)
        by_body.setdefault(entry.body, set()).add(entry.tested)
    for sides in (*by_name.values(), *by_summary.values(), *by_body.values()):
        assert len(sides) == 1
    share = sum(entry.tested for entry in catalogue.entries.values()) / len(catalogue.entries)
    assert 0.2 < share < 0.4


def test_tested_items_are_in_no_pair(written, catalogue):
    folder, _ = written
    entries = catalogue.entries
    summaries = {entry.summary for entry in entries.values() if entry.tested}
    texts = {entry.text for entry in entries.values() if entry.tested}
    pairs = records(folder, "pairs.jsonl")
    assert len(pairs) > 1000
    for pair in pairs:
        assert not entries[pair["document_id"]].tested
        assert pair["query"] not in summaries
        assert pair["query"] not in texts


def test_tests_use_tested_items_only(written, catalogue):
    folder, _ = written
    entries = catalogue.entries
    judged = table(folder, "qrels.tsv")
    assert {query for query, _, _ in judged} == {
        one["id"] for one in records(folder, "queries.jsonl")
    }
    for query, item, _ in judged:
        assert entries[query].tested
        assert entries[item].tested
    similar = table(folder, "similar.tsv")
    assert len(similar) > 1000
    assert all(entries[one].tested and one != other for one, other, _ in similar)


def test_every_item_with_a_summary_is_relevant_to_it(written, catalogue):
    folder, _ = written
    asked = {one["id"]: one["text"] for one in records(folder, "queries.jsonl")}
    answers = {(query, item) for query, item, _ in table(folder, "qrels.tsv")}
    for entry in catalogue.entries.values():
        for query, text in asked.items():
            if text == entry.summary:
                assert (query, entry.id) in answers


def test_sessions_are_of_items(written, catalogue):
    folder, _ = written
    found = records(folder, "sessions.jsonl")
    assert len(found) > 1000
    for session in found:
        assert len(session["items"]) > 1
        assert set(session["items"]) <= set(catalogue.entries)


def test_a_run_reads_what_is_written(written):
    folder, counts = written
    config = PipelineConfig.load(folder / "idiolect.toml")
    assert (config.base, config.tune.steps) == ("minilm", 3)
    data = Data(config.data, folder)
    assert len(data.items) == counts["items.jsonl"]
    assert len(data.pairs()) == counts["pairs.jsonl"]
    assert len(data.queries) == counts["queries.jsonl"]
    assert sum(map(len, data.qrels.values())) == counts["qrels.tsv"]
    assert sum(map(len, data.similar.values())) == counts["similar.tsv"]


@pytest.mark.slow
def test_the_same_packages_give_the_same_files(written, tmp_path):
    """In another process, with other addresses, hashes and random states."""
    folder, _ = written
    code = (
        "import sys; from pathlib import Path; from idiolect.pipeline.demo.demo import write_demo;"
        "write_demo(Path(sys.argv[1]), base='minilm', settings='[tune]\\nsteps = 3\\n')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    for path in (folder / "data").iterdir():
        if path.name != "sessions.jsonl":  # these are of the modules that a process has imported
            assert path.read_bytes() == (tmp_path / "data" / path.name).read_bytes(), path.name


def test_general_text_is_about_other_subjects():
    texts = general_text()
    assert len(texts) == len(set(texts)) > 500
    assert sum(map(len, texts)) > 500_000
    assert not any("import numpy" in text or "scipy" in text.casefold() for text in texts)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependencyError, match=r"scipy.*idiolect\[demo\]"):
        Catalogue.read(("numpy.fft", "scipy.fft"))


def test_a_missing_module_is_skipped():
    assert Catalogue.read(("numpy.fft", "numpy.no_such_module")).entries
    assert "numpy.fft" in module.MODULES


@pytest.mark.parametrize("base", ["minilm", "local"])
def test_the_command_writes_the_demo_and_runs_it(base, tmp_path, monkeypatch):
    done = []

    def write(folder, *, base):
        done.append((folder, base))
        return {"items.jsonl": 12345}

    monkeypatch.setattr("idiolect.pipeline.demo.demo.write_demo", write)
    monkeypatch.setattr("idiolect.cli.run.run", done.append)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    result = CliRunner().invoke(app, ["demo", "--base", base, "--out", "here"])
    assert result.exit_code == 0, result.output
    assert "12,345 items.jsonl" in result.output
    where = str(tmp_path / "local") if base == "local" else base
    assert done == [(Path("here"), where), Path("here/idiolect.toml")]
