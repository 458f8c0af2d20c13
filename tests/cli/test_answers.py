"""`idiolect answer`, `index passages` and `evaluate answers` from the command line."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from idiolect.cli.answers.answering import answer
from idiolect.cli.answers.judging import evaluate_answers
from idiolect.cli.main import app
from idiolect.errors import IdiolectError
from idiolect.search.answers.answer_options import AnswerOptions
from search.words import Words

_RECORDS = [
    {"id": 7, "title": "Pumps", "text": "The pump moves 9 litres an hour. Oil it \x1b[31mmonthly."},
    {"id": "seal", "title": "Seals", "text": "Seals are made of rubber [4]."},
]
_QUESTION = "How many litres does the pump move?"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})


def _fails(*arguments: str) -> str:
    result = _run(*arguments)
    assert isinstance(result.exception, IdiolectError), result.output
    return str(result.exception)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from idiolect.encoding.encoder import Encoder

    monkeypatch.setattr(Encoder, "load", lambda source, **_: Words())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, _RECORDS)))
    assert _run("index", "build", "ix", "docs.jsonl", "--encoder", "minilm").exit_code == 0
    return tmp_path


@pytest.mark.parametrize("stored", [False, True])
def test_an_answer_names_the_places_in_its_items(here: Path, stored: bool) -> None:
    if stored:
        assert "passages of 2 items" in _run("index", "passages", "ix", "--max-length", "8").stdout
    found = json.loads(_run("answer", "ix", _QUESTION, "--json").stdout)
    text = json.loads(_run("search", "ix", "pump", "-n", "1", "--json").stdout)["text"]
    assert found["answer"] == "The pump moves 9 litres an hour. [1]"
    (citation,) = found["citations"]
    assert citation.keys() == {"id", "start", "end", "text"}
    assert citation["id"] == "7"
    assert text[citation["start"] : citation["end"]] == citation["text"]
    shown = _run("answer", "ix", _QUESTION).stdout
    assert shown.startswith("The pump moves 9 litres an hour. [1]\n\n[1] 7, characters 6 to 38\n")
    none = json.loads(_run("answer", "ix", "Who won in 1998?", "--json").stdout)
    assert (none["abstained"], none["citations"]) == (True, [])
    nearest = _run("answer", "ix", "Who won in 1998?").stdout
    assert "The nearest passages:" in nearest
    assert "\x1b" not in nearest


def test_answers_are_evaluated(here: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": _QUESTION, "answers": ["9 litres"], "document": 7},
        {"question": "What are seals made of?", "answer": "rubber", "documents": ["seal"]},
    ]
    (here / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = json.loads(_run("evaluate", "answers", "ix", "q.jsonl", "--json").stdout)
    assert found["questions"] == 2
    assert found["document_recall_at_1"] == found["contains_answer"] == 1
    assert found["citation_precision"] == 1
    assert found["abstained_without_gold"] == 1
    assert "always citing the first" in _run("evaluate", "answers", "ix", "q.jsonl").stdout


@pytest.mark.parametrize("command", [answer, evaluate_answers])
def test_commands_have_the_defaults_of_the_index(command: Any) -> None:
    given = inspect.signature(command).parameters
    for name in ("min_confidence", "max_new_tokens", "max_prompt_tokens"):
        assert given[name].default == getattr(AnswerOptions, name), name


def test_wrong_input_is_one_line(here: Path) -> None:
    assert "the question is empty" in _fails("answer", "ix", " ")
    assert "nothing" in _fails("answer", "nothing", "x")
    assert "no namespace" in _fails("answer", "ix", "x", "--namespace", "other")
    assert "choose one" in _fails(
        "answer", "ix", "x", "--model", "m", "--endpoint", "http://x", "--endpoint-model", "m"
    )
    assert "--endpoint-model" in _fails("answer", "ix", "x", "--endpoint", "http://x/v1")
    assert "address" in _fails(
        "answer", "ix", _QUESTION, "--endpoint", "file:///etc/passwd", "--endpoint-model", "m"
    )
    (here / "q.jsonl").write_text('{"question": "x"}\n')
    assert "q.jsonl" in _fails("evaluate", "answers", "ix", "q.jsonl")
    for wrong in ("0", "1000000000000000000000", "-1"):
        assert _run("answer", "ix", "x", "--top-k", wrong).exit_code == 2
