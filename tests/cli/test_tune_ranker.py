"""`idiolect tune cross-encoder`, `two-tower` and `lambdamart`, from files to a reranked run."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.errors import CheckpointError, IdiolectError
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.ranking.evaluation.judged_collection import read_run, write_run
from idiolect.ranking.evaluation.metrics import evaluate
from idiolect.ranking.lambdamart import LambdaMART
from idiolect.ranking.two_tower import TwoTower
from ranking import small

_RNG = random.Random(0)
TEXTS = {f"d{i}": " ".join(_RNG.choices(small.WORDS, k=4)) for i in range(60)}
QUERIES = {f"q{i}": " ".join(_RNG.choices(small.WORDS, k=2)) for i in range(20)}
CANDIDATES = {query: _RNG.sample(sorted(TEXTS), 12) for query in QUERIES}
QRELS = {query: dict.fromkeys(found[:2], 2) for query, found in CANDIDATES.items()}
RUN = {q: {d: _RNG.random() for d in found} for q, found in CANDIDATES.items()}
ORACLE = {
    q: {d: QRELS[q].get(d, 0) + _RNG.random() / 2 for d in found} for q, found in CANDIDATES.items()
}
TRAINING = ["--batch-size", "4", "--negatives", "2", "--lr", "0.001"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, texts in (("corpus", TEXTS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "qrels").mkdir()
    names = list(QUERIES)
    _write_qrels(tmp_path / "qrels" / "train.tsv", {q: QRELS[q] for q in names[:15]})
    _write_qrels(tmp_path / "qrels" / "test.tsv", {q: QRELS[q] for q in names[15:]})
    small.encoder().save(tmp_path / "model")
    write_run(tmp_path / "random.txt", RUN)
    write_run(tmp_path / "oracle.txt", ORACLE)
    return tmp_path


def _write_qrels(path: Path, qrels: Mapping[str, Mapping[str, float]]) -> None:
    rows = [f"{q}\t{d}\t{g}" for q, grades in qrels.items() for d, g in grades.items()]
    path.write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))


def _run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "300"})
    if isinstance(result.exception, IdiolectError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def _rerank(folder: Path, model: Path, *options: str | Path) -> dict[str, dict[str, float]]:
    _run(
        "rerank", model, *options, "--documents", folder / "corpus.jsonl",
        "--queries", folder / "queries.jsonl", "-o", folder / "reranked.txt",
    )  # fmt: skip
    return read_run(folder / "reranked.txt")


@pytest.mark.parametrize("kind", ["cross-encoder", "two-tower"])
def test_train_and_rerank(kind: str, folder: Path) -> None:
    command = ["tune", kind, folder / "model", "--data", folder, "--run", folder / "random.txt"]
    output = _run(*command, *TRAINING, "--valid-split", "test", "-o", folder / "out")
    model = folder / "out" / "model"
    assert f"next: idiolect rerank {model} --run bm25.txt" in output
    before, after = (
        float(output.split(f"nDCG@10 {when} training: ")[1].split()[0])
        for when in ("before", "after")
    )
    found = _rerank(folder, model, "--run", folder / "random.txt")
    held = {q: grades for q, grades in QRELS.items() if q in list(QUERIES)[15:]}
    assert evaluate(held, found).means["ndcg@10"] == pytest.approx(after, abs=1e-4)
    assert before != after
    load = CrossEncoder.load if kind == "cross-encoder" else TwoTower.load
    expected = load(model).score([(QUERIES["q0"], TEXTS[doc]) for doc in found["q0"]])
    assert list(found["q0"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
    record = json.loads((folder / "out" / "run.json").read_text())
    assert (record["loss"], record["steps"]) == ("listwise", 7), "30 groups, 4 per step"
    with pytest.raises(CheckpointError, match="another run"):
        _run(*command, *TRAINING, "--loss", "pointwise", "-o", folder / "out")


@pytest.mark.parametrize("kind", ["cross-encoder", "two-tower"])
def test_checkpoints_and_tensorboard_events(kind: str, folder: Path) -> None:
    _run(
        "tune", kind, folder / "model", "--data", folder, "--run", folder / "random.txt",
        *TRAINING, "--save-steps", "3", "--tensorboard", "-o", folder / "out",
    )  # fmt: skip
    assert list((folder / "out" / "events").iterdir())
    record = json.loads((folder / "out" / "run.json").read_text())
    assert record["config"]["save_steps"] == 3


def test_a_teacher_s_scores_are_learnt_with_events(folder: Path) -> None:
    CrossEncoder.of(small.model()).save(folder / "teacher")
    _run(
        "tune", "two-tower", folder / "model", "--teacher", folder / "teacher", "--data", folder,
        "--run", folder / "random.txt", *TRAINING, "--tensorboard", "-o", folder / "out",
    )  # fmt: skip
    assert list((folder / "out" / "events").iterdir())


def test_bm25_finds_candidates(folder: Path) -> None:
    _run("tune", "cross-encoder", folder / "model", "--data", folder, *TRAINING,
         "-o", folder / "out")  # fmt: skip
    assert (folder / "out" / "model" / "config.json").exists()


def test_a_trained_cross_encoder_is_trained_further(folder: Path) -> None:
    ranker = CrossEncoder.of(small.model(), seed=5)
    ranker.save(folder / "ranker")
    _run("tune", "cross-encoder", folder / "ranker", "--data", folder, *TRAINING,
         "--lr", "1e-12", "-o", folder / "out")  # fmt: skip
    pairs = [("w1 w2", "w3 w4"), ("w5", "w6")]
    after = CrossEncoder.load(folder / "out" / "model").score(pairs)
    assert after.tolist() == pytest.approx(ranker.score(pairs).tolist(), abs=1e-4)


@pytest.mark.parametrize("crossing", ["cosine", "residual"])
def test_a_teacher_needs_no_judgements(crossing: str, folder: Path) -> None:
    CrossEncoder.of(small.model()).save(folder / "teacher")
    _run(
        "tune", "two-tower", folder / "model", "--teacher", folder / "teacher",
        "--documents", folder / "corpus.jsonl", "--queries", folder / "queries.jsonl",
        "--run", folder / "random.txt", "--crossing", crossing, "--max-length", "16",
        "--temperature", "2", *TRAINING, "-o", folder / "out",
    )  # fmt: skip
    towers = TwoTower.load(folder / "out" / "model")
    assert (towers.crossing, towers.towers["query"].max_length) == (crossing, 16)
    steps = json.loads((folder / "out" / "run.json").read_text())["steps"]
    assert steps == 5, "20 groups, 4 per step"


def test_lambdamart_combines_runs(folder: Path) -> None:
    runs = ["--run", folder / "random.txt", "--run", f"good={folder / 'oracle.txt'}"]
    output = _run(
        "tune", "lambdamart", "--data", folder, *runs, "--encoder", folder / "model",
        "--dimensions", "8", "--trees", "20", "--folds", "3", "-o", folder / "out",
    )  # fmt: skip
    model = folder / "out" / "model"
    assert f"next: idiolect rerank {model} --run random=FILE --run good=FILE" in output
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    values = metrics["ndcg@10"]
    names = ["bm25", "dense", "dense, 8 dimensions", "random", "good", "LambdaMART"]
    assert list(values) == names
    assert values["good"] == pytest.approx(1)
    train = {q: grades for q, grades in QRELS.items() if q in list(QUERIES)[:15]}
    expected = evaluate(train, RUN).means["ndcg@10"]
    assert values["random"] == pytest.approx(expected, abs=1e-6)
    assert values["LambdaMART"] > values["random"] + 0.1
    for name, value in values.items():
        assert name in output
        assert f"{value:.4f}" in output
    found = _rerank(folder, model, *runs, "--top-k", "12")
    assert {len(docs) for docs in found.values()} == {12}
    held = {q: grades for q, grades in QRELS.items() if q in list(QUERIES)[15:]}
    assert evaluate(held, found).means["ndcg@10"] > 0.8
    with pytest.raises(IdiolectError, match="the model needs the runs random, good"):
        _rerank(folder, model, *runs[:2])
    small.encoder(pooling="first").save(folder / "other")
    with pytest.raises(IdiolectError, match="not the one that the features were computed with"):
        _rerank(folder, model, *runs, "--encoder", folder / "other")


def test_lambdamart_with_bm25_alone(folder: Path) -> None:
    _run("tune", "lambdamart", "--data", folder, "--trees", "3", "-o", folder / "out")
    found = _rerank(folder, folder / "out" / "model", "--run", folder / "random.txt")
    assert set(found) == set(QUERIES)
    assert LambdaMART.load(folder / "out" / "model" / "lambdamart.json").names[0] == "bm25"


def test_lambdamart_with_small_grades_and_missing_candidates(folder: Path) -> None:
    """Any grade above 0 is relevant; the table counts the queries that its means are over."""
    train: dict[str, dict[str, float]] = {
        q: {d: g / 20 for d, g in QRELS[q].items()} for q in list(QUERIES)[:15]
    }
    _write_qrels(folder / "qrels" / "small.tsv", train)
    write_run(folder / "some.txt", {q: RUN[q] for q in list(QUERIES)[:12]})
    data = ["--data", folder, "--split", "small", "--run", folder / "some.txt"]
    output = _run("tune", "lambdamart", *data, "--trees", "3", "-o", folder / "out")
    shown = " ".join(output.split())
    assert "15 queries; LambdaMART by cross-validation in 5 folds; 3 queries without" in shown
    values = json.loads((folder / "out" / "metrics.json").read_text())["ndcg@10"]
    first = {q: QRELS[q] for q in list(QUERIES)[:12]}
    assert values["some"] == pytest.approx(evaluate(first, RUN).means["ndcg@10"] * 12 / 15)


@pytest.mark.parametrize("kind", ["cross-encoder", "two-tower", "lambdamart"])
def test_bad_input_is_reported(kind: str, folder: Path) -> None:
    model = [] if kind == "lambdamart" else [folder / "model"]
    command = ["tune", kind, *model, "-o", folder / "out"]
    with pytest.raises(IdiolectError, match="no judged data"):
        _run(*command)
    with pytest.raises(IdiolectError, match=r"dev\.tsv"):
        _run(*command, "--data", folder, "--split", "dev")
    _write_qrels(folder / "qrels" / "none.tsv", {"q0": {"d0": 0, "d1": 0}})
    with pytest.raises(IdiolectError, match="no query has a relevant document"):
        _run(*command, "--data", folder, "--split", "none")
    write_run(folder / "others.txt", {"x1": {"d0": 1.0}})
    with pytest.raises(IdiolectError, match="no candidates for any of the 15 queries"):
        _run(*command, "--data", folder, "--run", folder / "others.txt")
    write_run(folder / "gone.txt", {"q0": {"d0": 1.0, "gone": 2.0}})
    with pytest.raises(IdiolectError, match="1 ids of the run have no text: gone"):
        _run(*command, "--data", folder, "--run", folder / "gone.txt")
    if kind != "lambdamart":
        result = CliRunner().invoke(app, [str(a) for a in (*command, "--loss", "pairwise")])
        assert result.exit_code == 2
        assert "pairwise" in result.output
        write_run(folder / "single.txt", {"q0": dict.fromkeys(QRELS["q0"], 1.0)})
        with pytest.raises(IdiolectError, match="both a relevant document and a negative"):
            _run(*command, "--data", folder, "--run", folder / "single.txt")
    assert not (folder / "out").exists()


def test_options_that_do_not_fit_are_reported(folder: Path) -> None:
    out = ["-o", folder / "out"]
    with pytest.raises(IdiolectError, match="no queries or no documents"):
        _run("tune", "two-tower", folder / "model", "--teacher", folder / "model", *out)
    with pytest.raises(IdiolectError, match="--dimensions without --encoder"):
        _run("tune", "lambdamart", "--data", folder, "--dimensions", "8", *out)
    with pytest.raises(IdiolectError, match="no candidates"):
        _run("tune", "lambdamart", "--data", folder, "--no-bm25", *out)
    run = ["--run", folder / "random.txt"]
    with pytest.raises(IdiolectError, match="two runs named 'random'"):
        _run("tune", "lambdamart", "--data", folder, *run, *run, *out)


def test_help_shows_commands_and_examples() -> None:
    group = CliRunner().invoke(app, ["tune", "--help"], env={"COLUMNS": "120"}).output
    for kind in ("encoder", "cross-encoder", "two-tower", "lambdamart"):
        assert f" {kind} " in group
        help_text = CliRunner().invoke(app, ["tune", kind, "--help"]).output
        assert "Example: idiolect tune" in help_text
