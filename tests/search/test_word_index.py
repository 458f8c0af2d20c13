"""The index of words against comparing all words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.errors import InputError
from idiolect.search.word_index import WordIndex
from idiolect.words.word_vectors import WordVectors


@pytest.fixture(scope="module")
def vectors() -> WordVectors:
    """Vectors of different lengths, and one of zeros."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((300, 8)) * generator.uniform(0.1, 9, (300, 1))
    rows[7] = 0
    return WordVectors([f"w{n}" for n in range(300)], rows)


@pytest.fixture(scope="module")
def folder(vectors: WordVectors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "index"
    with WordIndex.build(path, vectors) as made:
        assert (len(made), made.left_out) == (299, 1)
    return path


@pytest.mark.parametrize(
    ("words", "negative"), [("w3", ()), (["w3", "w9"], ["w4"]), (["w3", "w3"], ()), ([], ["w5"])]
)
def test_it_answers_as_comparing_all_words(
    words: str | list[str], negative: list[str], vectors: WordVectors, folder: Path
) -> None:
    wanted = vectors.most_similar(words, 12, negative=negative)
    with WordIndex.open(folder) as index:
        found = index.most_similar(words, 12, negative=negative)
    assert [word for word, _ in found] == [word for word, _ in wanted]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in wanted], atol=1e-5)


def test_bad_queries_are_refused(vectors: WordVectors, folder: Path) -> None:
    with WordIndex.open(folder) as index:
        for words, negative, message in (
            ("w999", [], "no vector of 'w999'"),
            ("w7", [], "no vector of 'w7'"),
            ([], [], "no words to compare with"),
            (["w1"], ["w1"], "cancel out"),
        ):
            with pytest.raises(InputError, match=message):
                index.most_similar(words, negative=negative)
    zeros = WordVectors(["a"], [[0.0, 0]])
    with pytest.raises(InputError, match="every vector is zero"):
        WordIndex.build(folder / "other", zeros)


def test_the_commands_build_and_search(vectors: WordVectors, tmp_path: Path) -> None:
    run = CliRunner()
    file, out = str(tmp_path / "v.safetensors"), str(tmp_path / "index")
    vectors.save(file)
    built = run.invoke(app, ["words", "index", file, "-o", out])
    assert built.exit_code == 0, built.output
    assert "299 words" in built.stdout
    assert "(1 vectors of zeros left out)" in built.stdout
    query = ["w3", "w9", "--minus", "w4", "-n", "4", "--json"]
    answers = [
        json.loads(run.invoke(app, ["words", "similar", place, *query]).stdout)
        for place in (file, out)
    ]
    assert [one["word"] for one in answers[0]] == [one["word"] for one in answers[1]]
    assert len(answers[1]) == 4
