"""`idiolect evaluate search` and `idiolect rerank`, as a person runs them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.errors import ConfigError, IdiolectError, InputError
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.ranking.evaluation.baselines import BM25
from idiolect.ranking.evaluation.judged_collection import read_run, write_run
from idiolect.ranking.two_tower import TwoTower
from ranking import small

TEXTS = {f"d{i}": " ".join(small.WORDS[i : i + 3]) for i in range(12)}
QUERIES = {"q0": "w1 w2", "q1": "w6", "q2": "w9 w10"}
GRADES = {"q0": {"d1": 2, "d0": 1}, "q1": {"d5": 1, "d4": 1, "gone": 1}, "q2": {"d9": 2}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, texts in (("corpus", TEXTS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "qrels").mkdir()
    rows = [f"{q}\t{d}\t{g}" for q, grades in GRADES.items() for d, g in grades.items()]
    text = "\n".join(["query-id\tcorpus-id\tscore", *rows])
    (tmp_path / "qrels" / "test.tsv").write_text(text)
    small.encoder().save(tmp_path / "model")
    return tmp_path


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if isinstance(result.exception, IdiolectError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_evaluate_search(folder: Path) -> None:
    model = str(folder / "model")
    write_run(folder / "other.txt", {"q0": {"d1": 2.0, "d0": 1.0}, "q1": {"d5": 1.0}})
    output = _run(
        "evaluate", "search", model, "--base", model, "--data", str(folder),
        "--run", str(folder / "other.txt"), "--dimensions", "8,4",
        "--curve", str(folder / "made" / "curve.svg"), "--out", str(folder / "made" / "out.json"),
        "--per-query", str(folder / "made" / "queries.csv"),
    )  # fmt: skip
    assert "1 judgements name missing documents: 'gone'" in output
    assert "3 queries" in output
    figures = json.loads((folder / "made" / "out.json").read_text())
    systems = figures["systems"]
    assert list(systems) == [
        "BM25", "other.txt", "base", "base, 8 dimensions", "base, 4 dimensions",
        f"{folder.name}/model", f"{folder.name}/model, 8 dimensions",
        f"{folder.name}/model, 4 dimensions",
    ]  # fmt: skip
    for name in systems:
        assert name in output
    assert figures["baseline"] == "base"
    same = systems[f"{folder.name}/model"]["comparison"]
    assert (same["difference"], same["p_value"]) == (0, 1)
    assert systems["other.txt"]["unanswered"] == 1
    assert systems["other.txt"]["means"]["mrr@10"] == pytest.approx(2 / 3)
    with (folder / "made" / "queries.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(systems)
    mean = sum(float(r["ndcg@10"]) for r in rows if r["system"] == "BM25") / 3
    assert mean == pytest.approx(systems["BM25"]["means"]["ndcg@10"], abs=1e-5)
    drawing = (folder / "made" / "curve.svg").read_text()
    assert drawing.count("<svg") == 1
    curve = figures["curves"]["base"]
    assert set(curve) == {"16", "8", "4"}


def test_judgements_name_queries_by_their_text(folder: Path) -> None:
    (folder / "rated.csv").write_text("query,docid,rating\nw1 w2,d1,3\nw6,d5,1\nw9,d0,0\n")
    output = _run(
        "evaluate", "search", "--documents", str(folder / "corpus.jsonl"),
        "--qrels", str(folder / "rated.csv"), "--gain", "exponential",
    )  # fmt: skip
    assert "2 queries; 1 have no relevant document and are left out" in output


@pytest.mark.parametrize("kind", ["cross-encoder", "two towers"])
def test_rerank(kind: str, folder: Path) -> None:
    saved = folder / "ranker"
    score = (model := CrossEncoder.of(small.model())).score
    if kind == "two towers":
        score = (model := TwoTower(small.encoder())).score  # type: ignore[assignment]
    model.save(saved)
    write_run(folder / "bm25.txt", BM25(TEXTS).search(QUERIES))
    output = _run(
        "rerank", str(saved), "--run", str(folder / "bm25.txt"),
        "--documents", str(folder / "corpus.jsonl"), "--queries", str(folder / "queries.jsonl"),
        "-o", str(folder / "made" / "better.txt"), "--top-k", "2",
    )  # fmt: skip
    assert "3 queries, 6 documents" in output
    better = read_run(folder / "made" / "better.txt")
    for query, found in better.items():
        expected = score([(QUERIES[query], TEXTS[doc]) for doc in found])
        assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_errors_are_one_line(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no judged data"):
        _run("evaluate", "search", str(folder / "model"))
    with pytest.raises(ConfigError, match="--dimensions 8,x"):
        _run("evaluate", "search", "--data", str(folder), "--dimensions", "8,x")
    with pytest.raises(ConfigError, match="one or the other"):
        _run("evaluate", "search", "--data", str(folder), "--queries", "q.jsonl")
    with pytest.raises(InputError, match="not an image file"):
        _run(
            "evaluate", "search", str(folder / "model"), "--data", str(folder),
            "--curve", str(folder / "curve.txt"),
        )  # fmt: skip
    with pytest.raises(ConfigError, match="no classification head"):
        _run(
            "rerank", str(folder / "model"), "--run", "none", "--documents", "none",
            "--queries", "none", "-o", str(folder / "out.txt"),
        )  # fmt: skip


def test_what_a_run_lacks_is_told(folder: Path) -> None:
    """Matches without grades, and runs of other queries and documents."""
    (folder / "matches.csv").write_text("query_id,doc_id\nq0,d1\nq1,d5\nq9,d1\n")
    data = ("--documents", "corpus.jsonl", "--queries", "queries.jsonl", "--qrels", "matches.csv")
    paths = [str(folder / one) if "." in one else one for one in data]
    write_run(folder / "run.txt", {"q0": {"d1": 1.0, "gone": 0.5}, "x": {"d1": 1.0}})
    output = _run("evaluate", "search", *paths, "--run", str(folder / "run.txt"))
    for note in (
        "1 judged queries have no text: 'q9'",
        "run.txt: 1 documents of the run are not in the collection: 'gone'",
        "run.txt: 1 queries have no results and count as zero: 'q1'",
        "run.txt: 1 queries of the run have no judgements and are ignored: 'x'",
    ):
        assert note in output
    write_run(folder / "other.txt", {"x1": {"d1": 1.0}})
    with pytest.raises(InputError, match="none of the 2 judged queries: it names 'x1', they are"):
        _run("evaluate", "search", *paths, "--run", str(folder / "other.txt"))


def test_runs_of_one_file_name_are_different_systems(folder: Path) -> None:
    found = BM25(TEXTS).search(QUERIES)
    paths = [folder / name / "run.txt" for name in ("first", "second")]
    for path, run in zip(paths, (found, {"q0": {"d1": 1.0}}), strict=True):
        path.parent.mkdir()
        write_run(path, run)
    options = [option for path in paths for option in ("--run", str(path))]
    out = str(folder / "metrics.json")
    _run("evaluate", "search", "--data", str(folder), "--no-bm25", *options, "-o", out)
    assert list(json.loads(Path(out).read_text())["systems"]) == ["run.txt", str(paths[1])]


def test_one_query_is_not_compared(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\n")
    write_run(folder / "run.txt", {"q0": {"d1": 1.0}})
    output = _run(
        "evaluate", "search", "--data", str(folder), "--run", str(folder / "run.txt")
    )  # fmt: skip
    assert "one query tells nothing about others" in output


def test_models_are_loaded_on_the_local_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def device() -> str:
        asked.append("cpu")
        return "cpu"

    monkeypatch.setattr("idiolect.cli.ranking.local_device", device)
    _run("evaluate", "search", str(folder / "model"), "--data", str(folder))
    assert len(asked) == 1
    CrossEncoder.of(small.model()).save(folder / "cross")
    TwoTower(small.encoder()).save(folder / "towers")
    write_run(folder / "run.txt", {"q0": {"d1": 1.0}})
    for number, name in enumerate(("cross", "towers"), start=2):
        _run(
            "rerank", str(folder / name), "--run", str(folder / "run.txt"),
            "--documents", str(folder / "corpus.jsonl"),
            "--queries", str(folder / "queries.jsonl"), "-o", str(folder / "out.txt"),
        )  # fmt: skip
        assert len(asked) == number


def test_more_dimensions_than_the_vectors_have(folder: Path) -> None:
    model, data = str(folder / "model"), ("--data", str(folder))
    with pytest.raises(ConfigError, match=r"--dimensions 4096, and .*model has 16"):
        _run("evaluate", "search", model, *data, "--dimensions", "8,4096")
    # One of several encoders may be wider, so that the others only report what they lack.
    output = _run("evaluate", "search", model, "--base", model, *data, "--dimensions", "8,4096")
    assert "base: not evaluated at 4096 dimensions, it has 16" in output
