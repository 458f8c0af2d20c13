"""`idiolect audit` on the command line."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest

from cli.program import idiolect_program
from idiolect.cli import vocabulary
from idiolect.errors import InputError
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.terms import Terms
from vocabulary.conftest import DOMAIN, GENERAL, make

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess


def run(*arguments: object, width: int = 160) -> CompletedProcess[str]:
    return idiolect_program("audit", *arguments, columns=width)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make("gpt2").save(tmp_path / "gpt2")
    lines = [json.dumps({"note": text}) for text in DOMAIN]
    (tmp_path / "notes.jsonl").write_text("\n".join([*lines, "{broken"]))
    (tmp_path / "general.txt").write_text("\n".join(" ".join(t.split()) for t in GENERAL))
    (tmp_path / "words.vec").write_text("patients 1 0\nsufferers 1 1\ntax 0 1\n")
    (tmp_path / "glossary.txt").write_text("HbA1c\n\nthe\nquuxine\n")
    return tmp_path


def test_audit_writes_all_outputs(folder: Path) -> None:
    outputs = [folder / name for name in ("terms.json", "audit.json", "audit.csv")]
    done = run(
        folder / "gpt2", folder / "notes.jsonl", "--general", folder / "general.txt",
        "--glossary", folder / "glossary.txt", "--max-rows", 40, "--top", 5,
        "--vectors", folder / "words.vec",
        "--terms", outputs[0], "--json", outputs[1], "--csv", outputs[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for shown in ("tokens per word", "log-odds", "neighbours", "sufferers"):
        assert shown in done.stdout
    assert "skipped 1 records of the corpus: malformed JSON" in done.stderr
    assert "rejected 'the': already one token" in done.stdout
    assert "rejected '': empty" in done.stdout
    terms = Terms.load(outputs[0])
    assert len(terms.forms) <= 40
    assert {"HbA1c", "quuxine"} <= {term.text for term in terms}
    larger = extend(Tokenizer.load(folder / "gpt2"), terms, domain=DOMAIN)
    assert larger.extension.checks["domain"].saving > 0.3
    assert json.loads(outputs[1].read_text())["statistics"]["documents"] == len(DOMAIN)
    assert list(csv.DictReader(outputs[2].read_text().splitlines()))


def test_tables_fit_a_narrow_window(folder: Path) -> None:
    done = run(folder / "gpt2", folder / "notes.jsonl", "--top", 3, width=80)
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "Terms by tokens saved" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "notes.jsonl"], "no such file or directory"),
        (["gpt2", "nothing.jsonl"], "no such file or folder"),
        (["gpt2", "notes.jsonl", "--glossary", "none.txt"], "cannot read"),
        (["gpt2", "notes.jsonl", "--json", "no/folder/x.json"], "no folder"),
        (["gpt2", "notes.jsonl", "--terms", "."], "is a folder (name a file to write)"),
        (["gpt2", "notes.jsonl", "--max-rows", "0"], "no term can be chosen"),
        (["gpt2", "notes.jsonl", "--method=words"], "no method 'words'"),
        (["gpt2", "empty.txt"], "no documents"),
        (["gpt2", "glossary.txt", "--glossary", "latin.txt"], "not UTF-8 in line 1"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "latin.txt").write_bytes(b"na\xefve\n")
    (folder / "empty.txt").write_text("\n \n")
    paths = [a if a.startswith("-") or a.isdigit() else str(folder / a) for a in arguments]
    done = run(*paths)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_that_may_not_be_written_is_refused_before_the_audit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written"):
        vocabulary.audit("not-read-yet", [folder / "notes.jsonl"], terms_out=folder / "terms.json")


def test_the_promise_is_what_extend_measures(folder: Path) -> None:
    (folder / "notes.txt").write_text("\n".join(" ".join(text.split()) for text in DOMAIN))
    for method in ("exact", "merges"):
        terms = folder / f"{method}.json"
        done = run(
            folder / "gpt2", folder / "notes.txt", "--general", folder / "general.txt",
            "--max-rows", 40, "--method", method, "--terms", terms,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        saved = Terms.load(terms).saved
        assert f"{saved:,} fewer tokens" in " ".join(done.stdout.split())
        out = folder / f"extended-{method}"
        done = idiolect_program(
            "extend", folder / "gpt2", terms, "--domain", folder / "notes.txt",
            "--general", folder / "general.txt", "-o", out,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        record = Tokenizer.load(out).extension
        assert record.method == method
        assert len(record.added) == 40
        check = record.checks["domain"]
        assert check.tokens_before - check.tokens_after == saved


def test_one_document_and_a_large_budget(folder: Path) -> None:
    (folder / "one.txt").write_text("one document about metformin")
    done = run(folder / "gpt2", folder / "one.txt", "--max-rows", 100_000)
    assert done.returncode == 0, done.stderr
    assert "0 terms chosen" in " ".join(done.stdout.split())
