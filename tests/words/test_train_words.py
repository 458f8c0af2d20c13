"""Training, resuming, evaluating, and the commands."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.errors import CheckpointError, ConfigError, IdiolectError, InputError
from idiolect.words import glove, word2vec
from idiolect.words.evaluation import evaluate_words, spearman
from idiolect.words.glove import GloveConfig
from idiolect.words.train_words import train_words
from idiolect.words.word2vec import Word2VecConfig
from idiolect.words.word_datasets import read_test_set
from idiolect.words.word_stream import WordCounts, count_words, write_ids
from idiolect.words.word_vectors import WordVectors

RANDOM = np.random.default_rng(0)
TOPICS = (["heat", "energy", "steam", "fire"], ["tax", "law", "court", "judge"])
TEXTS = [
    " ".join(RANDOM.choice(TOPICS[(i + (RANDOM.random() < 0.15)) % 2]) for _ in range(12))
    for i in range(300)
]
SMALL: dict[str, Any] = {"dimensions": 8, "epochs": 5, "sample": 0.0, "learning_rate": 0.1}


@pytest.mark.parametrize(
    "config",
    [
        Word2VecConfig(**SMALL),
        Word2VecConfig(**SMALL, shared_negatives=False),
        Word2VecConfig(**SMALL, model="cbow"),
        Word2VecConfig(**SMALL, negative=0, threads=2),
        Word2VecConfig(**SMALL, min_n=3, buckets=500),
        GloveConfig(dimensions=8, epochs=20, window=3),
    ],
    ids=["shared", "pairs", "cbow", "softmax", "ngrams", "glove"],
)
def test_words_of_a_topic_become_neighbours(
    config: Word2VecConfig | GloveConfig, tmp_path: Path
) -> None:
    made = train_words(TEXTS * 3, tmp_path / "v", config)
    near = [word for word, _ in made.vectors.most_similar("court", top_k=3)]
    assert set(near) == {"tax", "law", "judge"}
    assert len(made.losses) == config.epochs
    assert np.isfinite(made.losses).all()
    assert [path.name for path in tmp_path.iterdir()] == ["v"], "nothing is left behind"
    loaded = WordVectors.load(tmp_path / "v")
    np.testing.assert_array_equal(loaded["court"], made.vectors["court"])
    if loaded.ngrams:
        assert loaded.similarity("courts", "court") > loaded.similarity("courts", "steam")


def test_texts_may_be_an_iterator(tmp_path: Path) -> None:
    """They are read three times."""
    config = Word2VecConfig(**SMALL)
    made = train_words(iter(TEXTS[:50]), tmp_path / "a", config)
    again = train_words(TEXTS[:50], tmp_path / "b", config)
    np.testing.assert_array_equal(made.vectors.vectors, again.vectors.vectors)


def test_a_vector_is_the_mean_of_the_word_and_its_ngrams(tmp_path: Path) -> None:
    """At hardly any learning rate the rows are those of the start."""
    settings = {**SMALL, "epochs": 1, "learning_rate": 1e-9, "min_n": 3, "buckets": 50}
    made = train_words(TEXTS, tmp_path / "v", Word2VecConfig(**settings, seed=2)).vectors
    assert made.ngrams is not None
    rows = (np.random.default_rng(2).random((len(made) + 50, 8), np.float32) - 0.5) / 8
    own = [made.words.index("court"), *(len(made) + one for one in made.ngrams.hashes("court"))]
    np.testing.assert_allclose(made["court"], rows[own].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "loop"),
    [
        (Word2VecConfig(**SMALL, seed=4), (word2vec._Trainer, "run")),
        (GloveConfig(dimensions=8, epochs=5, window=3, seed=4), (glove._State, "fit")),
    ],
    ids=["word2vec", "glove"],
)
def test_a_killed_run_resumes_bit_identical(
    config: Word2VecConfig | GloveConfig,
    loop: tuple[Any, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(word2vec, "_JOB_WORDS", 500)
    monkeypatch.setattr(glove, "_CHUNK", 20)
    for module in (word2vec, glove):
        monkeypatch.setattr(module, "_SAVE_SECONDS", 0.0)
    whole = train_words(TEXTS, tmp_path / "whole", config)
    run, calls = getattr(*loop), []

    def killed(*args: object) -> object:
        calls.append(args)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return run(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(*loop, killed)
        with pytest.raises(KeyboardInterrupt):
            train_words(TEXTS, tmp_path / "killed", config)
    with pytest.raises(CheckpointError, match="other settings"):
        train_words(TEXTS, tmp_path / "killed", replace(config, seed=5))
    with pytest.raises(CheckpointError, match="another corpus: its texts differ"):
        train_words([*TEXTS[:-1], TEXTS[0]], tmp_path / "killed", config)
    resumed = train_words(TEXTS, tmp_path / "killed", config)
    np.testing.assert_array_equal(resumed.vectors.vectors, whole.vectors.vectors)
    assert resumed.losses == whole.losses


@pytest.mark.parametrize("config", [Word2VecConfig(**SMALL), GloveConfig(dimensions=8, epochs=2)])
def test_a_run_killed_while_its_folder_is_deleted_is_trained_again(
    config: Word2VecConfig | GloveConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(folder: Path) -> None:
        for path in sorted(folder.iterdir())[::2]:
            path.unlink()
        raise KeyboardInterrupt

    for module in (word2vec, glove):
        monkeypatch.setattr(module, "_SAVE_SECONDS", 0.0)
    path = tmp_path / "words.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut_short)
        with pytest.raises(KeyboardInterrupt):
            train_words(TEXTS, path, config)
    before = path.read_bytes()
    train_words(TEXTS, path, config)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("model", ["skipgram", "cbow"])
def test_the_loss_does_not_depend_on_threads(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate of zero threads cannot change each other's rows, so the sums are equal bits."""
    monkeypatch.setattr(word2vec, "_JOB_WORDS", 300)
    found = []
    for threads in (1, 3):
        config = Word2VecConfig(**{**SMALL, "epochs": 2, "model": model, "threads": threads})
        object.__setattr__(config, "rate", 0.0)
        found.append(train_words(TEXTS, tmp_path / str(threads), config).losses)
    assert found[0] == found[1]
    # Rows of outputs begin at zero: every one of at most six predictions costs log 2.
    assert 5 * np.log(2) < found[0][0] <= 6 * np.log(2) + 1e-6


@pytest.mark.parametrize("model", ["skipgram", "cbow"])
def test_each_epoch_reads_all_sentences_in_its_order(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word2vec, "_JOB_WORDS", 60)
    known = WordCounts.of(count_words(TEXTS), 1)
    encoded = write_ids(TEXTS, known.words, tmp_path)
    config = Word2VecConfig(model, seed=1, epochs=2)
    trainer = word2vec._Trainer(encoded, known.words, known.counts, config)
    jobs = len(trainer.jobs)
    assert jobs > 5
    places = [trainer.place(done) for done in range(2 * jobs)]
    first, second = ([number for _, number, _ in places[at : at + jobs]] for at in (0, jobs))
    assert sorted(first) == sorted(second) == list(range(jobs))
    assert (first == second) == (model == "cbow")
    assert (first == sorted(first)) == (model == "cbow")
    sizes = [len(encoded.read(*trainer.jobs[number])[0]) for number in first + second]
    assert [before for *_, before in places] == [sum(sizes[:done]) for done in range(2 * jobs)]
    assert sum(sizes) == 2 * len(encoded)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["once only here"], "0 of 3 different words occur at least 5 times"),
        (["same same same same same same"], "at least two words"),
        (["..."], "0 of 0 different words"),
        (["alpha", "beta"] * 9, "no two words were left together"),
    ],
)
def test_too_little_text_is_named(texts: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train_words(texts, tmp_path / "v")
    assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_succeed_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no two words occur together"):
        train_words(["alpha", "beta"] * 9, tmp_path / "v", GloveConfig())
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="is a folder"):
        train_words(TEXTS, tmp_path, GloveConfig())


@pytest.mark.parametrize(
    "settings",
    [{"dimensions": 0}, {"window": True}, {"learning_rate": float("nan")}, {"min_n": 7}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Word2VecConfig(**settings)  # type: ignore[arg-type]


def _vectors() -> WordVectors:
    words = ["a", "b", "c", "d", "e"]
    return WordVectors(words, [[1, 0], [0.9, 0.1], [0.1, 1], [0, 1], [-1, 0]])


def test_relatedness_is_spearman_of_known_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("A\tb\t9\na\tc\t5\na\te\t1\na\tzzz\t9.5\n")
    score = evaluate_words(_vectors(), read_test_set(path))
    assert (score.kind, score.answered, score.questions) == ("relatedness", 3, 4)
    assert score.score == pytest.approx(1.0)
    assert score.score_all < 1
    assert spearman(np.array([1, 2, 2, 3]), np.array([1, 3, 2, 4])) == pytest.approx(0.9486833)


def test_analogies_and_categories(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text(": letters\na b d c\na b zzz c\n")
    score = evaluate_words(_vectors(), read_test_set(path))
    assert (score.score, score.score_all, score.sections) == (1.0, 0.5, {"letters": 1.0})
    path = tmp_path / "classes.csv"
    path.write_text(",category,word\n0,x,a\n1,x,b\n2,y,c\n3,y,d\n4,y,zzz\n")
    score = evaluate_words(_vectors(), read_test_set(path))
    assert (score.kind, score.score, score.answered) == ("categorisation", 1.0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (": s\na b c\n", "line 2 of .* has 3 words, but an analogy needs four"),
        ("a b 1\na b\n", "line 2 of .* is not two words and a score"),
        ("", "no questions"),
        (": a section alone\n", "no questions"),
        ("word1,word2,similarity\n", "no questions"),
        ("category,word\n", "no questions"),
        ("a,b,1\n" + "x" * 200_000 + ",b,1\n", "is no CSV"),
    ],
)
def test_a_damaged_test_set_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_test_set(path)


def test_damaged_compressed_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.txt.gz"
    data = bytearray(gzip.compress(" ".join(map(str, RANDOM.random(3000))).encode()))
    data[200:220] = b"\xff" * 20
    path.write_bytes(data)
    for read in (WordVectors.load, read_test_set):
        with pytest.raises(InputError, match=r"cannot read .*damaged"):
            read(path)


def test_the_commands_train_ask_and_evaluate(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    (tmp_path / "pairs.txt").write_text("heat fire 9\nheat tax 1\nlaw judge 8\n")
    run = CliRunner()

    def call(*args: str) -> str:
        result = run.invoke(app, ["words", *args])
        assert result.exit_code == 0, result.output
        return result.stdout

    small = ["--dimensions", "8", "--epochs", "9"]
    names = [str(tmp_path / f"{model}.safetensors") for model in ("skipgram", "glove")]
    for name in names:
        model = Path(name).stem
        sample = ["--sample", "0"] if model == "skipgram" else []
        call("train", str(tmp_path / "texts.txt"), "--model", model, "-o", name, *small, *sample)
    trained = Path(names[0]).read_bytes()
    again = ["words", "train", str(tmp_path / "texts.txt"), "-o", names[0], "--seed", "1"]
    with pytest.raises(InputError, match="already contains a set of vectors"):
        run.invoke(app, again, catch_exceptions=False)
    assert Path(names[0]).read_bytes() == trained
    assert len(json.loads(call("similar", names[0], "court", "-n", "3", "--json"))) == 3
    page = tmp_path / "words.html"
    found = json.loads(
        call("evaluate", *names, str(tmp_path / "pairs.txt"), "--report", str(page), "--json")
    )
    assert found["models"]["skipgram"][0]["questions"] == 3
    assert "<svg" in page.read_text()
    (tmp_path / "sets" / "english").mkdir(parents=True)
    (tmp_path / "pairs.txt").rename(tmp_path / "sets" / "english" / "pairs.txt")
    (tmp_path / "sets" / "README").write_text("what these are")
    result = run.invoke(app, ["words", "evaluate", names[0], str(tmp_path / "sets"), "--json"])
    assert "left out 1 that are no test sets: README" in result.stderr
    assert json.loads(result.stdout)["models"]["skipgram"][0]["test"] == "english/pairs"
    encoder = tmp_path / "encoder"
    call("export", names[0], "-o", str(encoder))
    saved = {path: path.read_bytes() for path in encoder.rglob("*") if path.is_file()}
    for command in (["words", "export", names[1]], ["export", "table", str(encoder)]):
        with pytest.raises(InputError, match="already contains a model"):
            run.invoke(app, [*command, "-o", str(encoder)], catch_exceptions=False)
    assert {path: path.read_bytes() for path in saved} == saved
    with pytest.raises(IdiolectError):
        run.invoke(app, ["words", "evaluate", names[0]], catch_exceptions=False)
