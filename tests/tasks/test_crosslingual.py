"""Bitext: margins and mining by enumeration, parallel files, archives and the commands."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cli.program import idiolect_program
from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError, InputError
from idiolect.tasks.crosslingual.aligned_sentences import ParallelText, read_archive, read_parallel
from idiolect.tasks.crosslingual.margin_scores import mine_pairs, retrieval_errors
from training import models


def _vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


def _scores(x: np.ndarray, y: np.ndarray, margin: str, k: int) -> np.ndarray:
    """The formula, pair by pair."""
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y)]
    cosine = unit[0] @ unit[1].T
    scores = np.zeros_like(cosine)
    for i in range(len(x)):
        for j in range(len(y)):
            near = (np.sort(cosine[i])[-k:].mean() + np.sort(cosine[:, j])[-k:].mean()) / 2
            scores[i, j] = {
                "cosine": cosine[i, j],
                "ratio": cosine[i, j] / near,
                "distance": cosine[i, j] - near,
            }[margin]
    return scores


@pytest.mark.parametrize("margin", ["cosine", "ratio", "distance"])
def test_errors_and_mining_by_enumeration(margin) -> None:  # type: ignore[no-untyped-def]
    x = _vectors(12, 0)
    y = x + 0.6 * _vectors(12, 1)
    expected = _scores(x, y, margin, 3)
    errors = retrieval_errors(x, y, margin=margin, k=3)
    assert errors.forward == pytest.approx((expected.argmax(1) != np.arange(12)).mean())
    assert errors.backward == pytest.approx((expected.argmax(0) != np.arange(12)).mean())
    assert 0 < errors.mean < 1
    mined = mine_pairs(x, y, margin=margin, k=3)
    candidates = {(i, int(expected[i].argmax())) for i in range(12)}
    candidates |= {(int(expected[:, j].argmax()), j) for j in range(12)}
    left, found = sorted(candidates, key=lambda p: -expected[p]), []
    while left:
        found.append(left[0])
        left = [p for p in left if p[0] != found[-1][0] and p[1] != found[-1][1]]
    assert [(pair.source, pair.target) for pair in mined] == found
    np.testing.assert_allclose([p.score for p in mined], [expected[p] for p in found], atol=1e-5)
    limit = mined[3].score
    assert len(mine_pairs(x, y, margin=margin, k=3, threshold=limit)) == 4


def test_margin_beats_cosine_where_one_sentence_is_near_to_all() -> None:
    x = _vectors(40, 2)
    y = x + 0.5 * _vectors(40, 3)
    y[0] = x.mean(0) + 0.1 * y[0]
    x = x + 4 * y[0] / np.linalg.norm(y[0])  # a hub
    assert retrieval_errors(x, y).forward < retrieval_errors(x, y, margin="cosine").forward


def test_halves_share_no_target_and_keep_all() -> None:
    targets = [f"t{i % 40}" for i in range(100)]
    text = ParallelText("de", [f"s{i}" for i in range(100)], targets)
    first, second = text.part("first"), text.part("second")
    assert len(first.sources) + len(second.sources) == 100
    assert not set(first.targets) & set(second.targets)
    assert 25 < len(first.sources) < 75


def _archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_only_a_line_feed_ends_a_sentence(tmp_path: Path) -> None:
    """A line separator in one sentence would misalign all that follow, unseen if both have one."""
    sides = ["eins\u2028und\nzwei\ndrei\n", "one and\ntwo\nthree\x85more\n"]
    (tmp_path / "de").write_text(sides[0])
    (tmp_path / "en.gz").write_bytes(gzip.compress(sides[1].encode()))
    files = {"tatoeba.deu-eng.deu": sides[0], "tatoeba.deu-eng.eng": sides[1]}
    [archived] = read_archive(_archive(tmp_path / "both.tar.gz", files))
    for text in (read_parallel(tmp_path / "de", tmp_path / "en.gz"), archived):
        assert text.sources == ["eins\u2028und", "zwei", "drei"]
        assert text.targets == ["one and", "two", "three\x85more"]


def test_bad_input(tmp_path: Path) -> None:
    files = {"tatoeba.deu-eng.deu": "eins\nzwei\n", "tatoeba.deu-eng.eng": "one\ntwo\n"}
    good = _archive(tmp_path / "good.tar.gz", files)
    [text] = read_archive(good)
    assert (text.name, text.sources, text.targets) == ("deu", ["eins", "zwei"], ["one", "two"])
    with pytest.raises(InputError, match="no language 'fra'"):
        read_archive(good, ["fra"])
    half = _archive(tmp_path / "half.tar.gz", {"tatoeba.deu-eng.deu": "eins\n"})
    with pytest.raises(InputError, match="a side of deu is missing"):
        read_archive(half)
    (tmp_path / "no.tar.gz").write_text("no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_archive(tmp_path / "no.tar.gz")
    (tmp_path / "de").write_text("eins\nzwei\n")
    (tmp_path / "en").write_text("one\n")
    with pytest.raises(InputError, match="2 and 1 lines"):
        read_parallel(tmp_path / "de", tmp_path / "en")
    with pytest.raises(InputError, match="2 source and 1 target"):
        retrieval_errors(_vectors(2, 0), _vectors(1, 0))
    with pytest.raises(ConfigError, match="unknown margin"):
        retrieval_errors(_vectors(2, 0), _vectors(2, 0), margin="half")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no sentences"):
        mine_pairs(_vectors(2, 0), _vectors(0, 0))


def test_commands(tmp_path: Path) -> None:
    Encoder(models.model("bert", grown=False)).save(tmp_path / "model")
    texts = list(dict.fromkeys(models.texts(20)))
    for name in ("de", "en"):
        (tmp_path / name).write_text("\n".join(texts))
    (tmp_path / "en.gz").write_bytes(gzip.compress("\n".join(texts).encode()))
    both = ("--source", "de", "--target", "en")
    ran = idiolect_program("tasks", "bitext", "evaluate", "model", *both, "--json", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["de"]["ratio"] == {"forward": 0.0, "backward": 0.0}
    ran = idiolect_program(
        *("tasks", "bitext", "mine", "model", "--source", "de", "--target", "en.gz"),
        *("-o", "mined.tsv"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.split("\t") for line in (tmp_path / "mined.tsv").read_text().splitlines()]
    assert lines[0] == ["score", "source", "target"]
    assert len(lines) == len(texts) + 1
    assert all(one == other for _, one, other in lines[1:])
    ran = idiolect_program("tasks", "bitext", "pairs", *both, "-o", "p.jsonl", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    first = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])
    assert first == {"query": texts[0], "document": texts[0]}
    ran = idiolect_program("tasks", "bitext", "evaluate", "model", folder=tmp_path)
    assert ran.returncode == 2
    assert "give --source and --target" in ran.stderr
