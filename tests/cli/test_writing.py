"""`idiolect generate` and `idiolect chat`: streams, JSON, sampling, and lines of error."""

from __future__ import annotations

import io
import json
from pathlib import Path
from unittest import mock

import pytest

from cli.program import idiolect_program
from idiolect.generate.generator import Generator
from training import models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    models.model("llama", grown=False).save(path)
    return path


def test_generate_prints_what_the_generator_writes(folder: Path) -> None:
    expected = Generator(str(folder)).generate(["w1 w2", "w3"], max_new_tokens=5)
    streamed = idiolect_program("generate", folder, "w1 w2", "--max-new-tokens", 5)
    assert streamed.stdout == expected[0].text + "\n"
    listed = idiolect_program("generate", folder, "w1 w2", "w3", "--max-new-tokens", 5, "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [row["ids"] for row in rows] == [one.ids for one in expected]
    assert [row["logprob"] for row in rows] == pytest.approx([one.logprob for one in expected])
    drawn = [
        idiolect_program("generate", folder, "w1", "--temperature", 2, "--seed", seed).stdout
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_contradicts_is_one_line(folder: Path) -> None:
    for words, message in (
        (["--num-beams", 2, "--top-p", 0.5], "exclude each other"),
        (["--top-p", 0], "above 0 and at most 1"),
        (["--regex", "a", "--grammar", "b"], "choose one"),
    ):
        run = idiolect_program("generate", folder, "w1", *words)
        assert run.returncode == 2
        assert message in run.stderr.splitlines()[-1]


def test_chat_answers_each_line(tmp_path: Path) -> None:
    model = models.model("llama", grown=False)
    model.tokenizer.settings["chat_template"] = (
        "{% for m in messages %}{{ m.content }} {% endfor %}"
    )
    model.save(tmp_path)
    with mock.patch("sys.stdin", io.StringIO("w1 w2\nw3\n\nw4\n")):
        run = idiolect_program("chat", tmp_path, "--max-new-tokens", 4, "--temperature", 0)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 2
