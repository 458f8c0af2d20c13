"""The handbook has a section for everything that the notes name, and builds without a warning."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
HANDBOOK = ROOT / "docs" / "handbook"
NOTES = ROOT.parent / "shared" / "reference" / "notes.rst"
RENAMED = {
    "ondiffcultyoftrainingrecurrentneuralnetworks": "ondifficultyoftrainingrecurrentneuralnetworks",
    "xlmrrobertaunsupervisedcrosslingualrepresentationlearningatscale": (
        "xlmrunsupervisedcrosslingualrepresentationlearningatscale"
    ),
    "pineconeyoutubeplaylist": "pinecone",
    "finetuninglargelanguagemodelsmagazine": "finetuninglargelanguagemodels",
}
"""Names that the handbook writes otherwise, without the notes' slips of spelling."""


def _plain(name: str) -> str:
    """Return the letters of a name, without marks for its source or its kind of network."""
    name = re.sub(r"`(.+?)\s*<.*?>`_", r"\1", name)
    name = re.sub(
        r"\[(?:[\w.]+\.[\w.]+|Github|Encoder|Decoder|Encoder-Decoder|Autoencoder)\]", "", name
    )
    name = name.replace("don\u2019t", "dont").replace("donâ€™t", "dont").split(" - learning")[0]
    name = re.sub(r"\[(?:GPT-3|T5|BART|Roberta)\](?=:)", "", name)
    name = name.replace("EÂ€icient", "Efficient").replace("forWord", "for Word")
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\bthe\b", "", name.lower()))


def _notes() -> list[str]:
    """Return the notes' headings and bullets, without those of the text of the solution."""
    text = NOTES.read_text(encoding="utf-8")
    lines = text.splitlines()
    headings = [
        line.strip()
        for line, under in pairwise(lines)
        if re.fullmatch(r"[*=^#-]{20,}", under.strip()) and line.strip()
    ]
    bullets = [m[1] for m in re.finditer(r"^\s+\* (.+)$", text, re.MULTILINE)]
    skipped = ("tokenizer.", "model.", "torch.", "TODO")
    return [
        name
        for name in headings + bullets
        if not name.startswith(skipped) and not re.fullmatch(r"[*=^#-]{20,}", name)
    ]


def test_everything_in_the_notes_has_a_section() -> None:
    if not NOTES.exists():
        pytest.skip("the notes are not beside this checkout")
    pages = [path.read_text(encoding="utf-8") for path in sorted(HANDBOOK.glob("*.md"))]
    sections = {
        _plain(m[1]) for page in pages for m in re.finditer(r"^#+ (.+)$", page, re.MULTILINE)
    }
    names = {RENAMED.get(_plain(name), _plain(name)): name for name in _notes()}
    assert len(names) > 70
    missing = [name for plain, name in names.items() if plain not in sections]
    assert not missing


def test_code_and_figures_that_pages_name_exist() -> None:
    copied = json.loads((ROOT / "docs" / "measurements.json").read_text(encoding="utf-8"))
    recorded = {
        key for record in _records() if record["others"] <= 0.2 for key in record["figures"]
    }
    used = set()
    for path in HANDBOOK.glob("*.md"):
        page = path.read_text(encoding="utf-8")
        used |= set(re.findall(r"\{measured\}`([^`]+)`", page))
        for file, name in re.findall(
            r"```\{literalinclude\} (\S+)\n:pyobject: ([\w.]+)", page, re.MULTILINE
        ):
            source = (HANDBOOK / file).read_text(encoding="utf-8")
            assert re.search(rf"^ *(?:class|def) {name.split('.')[-1]}\b", source, re.MULTILINE), (
                name
            )
    assert used - recorded == set(copied["figures"]), "what is recorded is not copied as well"


def _records() -> list[dict[str, Any]]:
    files = sorted((ROOT / "docs" / "benchmarks").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_recorded_benchmarks_say_where_they_ran_and_name_no_place() -> None:
    records = _records()
    assert records
    for record in records:
        path = ROOT / record["command"].split()[1]
        assert path.is_file()
        for key in record["figures"]:
            assert f'"{key.split(".")[0]}.' in path.read_text(encoding="utf-8"), key
        assert {"processor", "cores", "memory_gib", "system"} == set(record["machine"])
        assert 0 <= record["others"] <= 1
        assert {"python", "idiolect", "numpy"} <= set(record["versions"])
        assert record["lines"]
        written = json.dumps(record)
        assert not re.search(r"/(?:home|root|tmp|work|Users)/", written), record["command"]


def test_a_benchmark_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    record = importlib.import_module("record")
    (tmp_path / "made.py").write_text(
        "import sys, numpy, record\nprint('read', sys.argv[1])\nrecord.figure('made.one', '2', 'x')"
    )
    monkeypatch.setattr(record, "BENCHMARKS", tmp_path)
    monkeypatch.setattr(record, "OUT", tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    record.main(["made", str(tmp_path / "data.txt")])
    found = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))
    assert found["command"] == "python benchmarks/made.py data.txt"
    assert found["lines"] == ["read data.txt"]
    assert found["figures"] == {"made.one": {"value": "2", "what": "x"}}
    assert found["versions"]["numpy"] == np.__version__
    assert found["machine"]["cores"] >= 1


@pytest.mark.slow
def test_the_handbook_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-nW", "--keep-going", "-q"]
    built = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr[-3000:]
