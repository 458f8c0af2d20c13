"""Audit, encode, index and evaluation in parts have the results of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from encoding.models import tiny_encoder
from idiolect.cli.main import app
from idiolect.encoding.encoder import Encoder
from idiolect.errors import CheckpointError, InputError
from idiolect.ranking.evaluation.baselines import Dense
from idiolect.scale import ray_encode
from idiolect.scale.corpus_parts import ReadingOptions
from idiolect.scale.ray_audit import audit_on_ray
from idiolect.scale.ray_encode import encode_on_ray
from idiolect.scale.ray_encoder import RayEncoder
from idiolect.scale.storage import Storage
from idiolect.scale.vector_shards import VectorShards
from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.text.corpus import Corpus
from idiolect.text.skipped import Skipped
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.audit.audit_report import audit_record
from scale.in_process import without_ray
from vocabulary.conftest import DOMAIN, GENERAL, make


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)


def _write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "encoder"
    tiny_encoder().save(folder)
    return str(folder)


TEXTS = [" ".join(f"w{(i * j) % 23}" for j in range(1, 3 + i % 9)) for i in range(60)]


@pytest.mark.parametrize("layout", ["gpt2"])
def test_an_audit_in_parts_is_that_of_one_process(tmp_path: Path, layout: str) -> None:
    make(layout).save(tmp_path / "tokenizer")
    corpus = _write(tmp_path / "corpus.jsonl", [*DOMAIN * 4, *GENERAL])
    general = _write(tmp_path / "general.jsonl", GENERAL)
    one = audit(make(layout), Corpus(corpus), Corpus(general), ["metformin"])
    parted = audit_on_ray(
        str(tmp_path / "tokenizer"), [corpus], "auto",
        general=[general], glossary=["metformin"], part_bytes=4000,
    )  # fmt: skip
    assert audit_record(parted) == audit_record(one)
    chosen, expected = parted.choose(30), one.choose(30)
    assert list(chosen) == list(expected)
    assert len(expected) > 3
    assert chosen.saved == expected.saved


def test_vectors_in_shards_are_those_of_one_process(tmp_path: Path, model: str) -> None:
    source = _write(tmp_path / "texts.jsonl", [*TEXTS, " "])
    out = tmp_path / "vectors"
    shards = encode_on_ray(model, [source], out, "auto", part_bytes=300)
    assert len(shards.record["shards"]) > 5
    assert shards.record["skipped"] == {"empty": 1}
    expected = Encoder.load(model).encode(TEXTS)
    np.testing.assert_allclose(VectorShards.open(out).array(), expected, atol=1e-6)
    assert len(shards) == len(TEXTS) == shards.record["counts"]["texts"]


def test_the_limit_of_unreadable_rows_holds_for_a_whole_file(tmp_path: Path, model: str) -> None:
    """The last line of a file is often incomplete, and its part may have few others."""
    make("gpt2").save(tmp_path / "tokenizer")
    source = _write(tmp_path / "texts.jsonl", TEXTS * 2)
    with source.open("a") as file:
        file.write('{"text": "cut')
    tokenizer, skipped = str(tmp_path / "tokenizer"), Skipped()
    parted = audit_on_ray(tokenizer, [source], "auto", part_bytes=300, skipped=skipped)
    assert audit_record(parted) == audit_record(audit(make("gpt2"), Corpus(source)))
    assert skipped == {"malformed JSON": 1}
    shards = encode_on_ray(model, [source], tmp_path / "vectors", "auto", part_bytes=300)
    assert len(shards) == len(TEXTS) * 2
    strict = ReadingOptions(max_unreadable=0.005)
    with pytest.raises(InputError, match="1 of 121 rows cannot be read: 1 malformed JSON"):
        audit_on_ray(tokenizer, [source], "auto", options=strict, part_bytes=300)
    with pytest.raises(InputError, match="1 of 121 rows cannot be read"):
        encode_on_ray(model, [source], tmp_path / "strict", "auto", options=strict, part_bytes=300)


def test_an_interrupted_run_resumes_and_encodes_nothing_twice(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = _write(tmp_path / "texts.jsonl", TEXTS), tmp_path / "vectors"
    usual, encoded = Encoder.encode, list[str]()

    def failing(self: Encoder, texts: list[str], **options: object) -> object:
        encoded.extend(texts)
        if len(encoded) > 30 and "resumed" not in encoded:
            raise OSError("the node is lost")
        return usual(self, texts, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "encode", failing)
    with pytest.raises(OSError, match="lost"):
        encode_on_ray(model, [source], out, "auto", part_bytes=300)
    with pytest.raises(CheckpointError, match="no finished vectors"):
        VectorShards.open(out)
    written = len(list(out.glob("part-*.parquet")))
    assert written > 0
    (out / "part-000000.parquet").write_bytes(b"PAR1 cut short")  # a damaged shard is written again
    encoded[:] = ["resumed"]
    shards = encode_on_ray(model, [source], out, "auto", part_bytes=300)
    again = len(encoded) - 1
    kept = sum(shards.record["shards"][1:written])
    assert again == len(TEXTS) - kept
    np.testing.assert_allclose(shards.array(), usual(Encoder.load(model), TEXTS), atol=1e-6)
    with pytest.raises(InputError, match="started with dimensions"):
        encode_on_ray(model, [source], out, "auto", part_bytes=300, dimensions=4)
    with pytest.raises(InputError, match="other texts"):
        encode_on_ray(model, [source], out, "auto", part_bytes=400)
    with pytest.raises(InputError, match="one file"):
        encode_on_ray(model, [source], tmp_path / "vectors.npy", "auto")


def test_a_write_cut_short_is_never_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Storage.of(tmp_path / "folder" / "file")
    target.write(b"old")

    class Failing(type(tmp_path)):  # type: ignore[misc]
        def open(self, *_: object, **__: object) -> object:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        target.write(Failing(tmp_path / "source"))
    assert target.read() == b"old"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


def test_an_index_and_an_evaluation_with_vectors_of_nodes(tmp_path: Path, model: str) -> None:
    encoder, remote = Encoder.load(model), RayEncoder(model, "auto")
    assert (remote.fingerprint, remote.dimensions) == (encoder.fingerprint, encoder.dimensions)
    items = [Item(f"i{i}", text) for i, text in enumerate(TEXTS)]
    with Index.build(tmp_path / "index", remote, items) as built:
        assert built.counts["written"] == len(TEXTS)
    with Index.open(tmp_path / "index", encoder) as index:
        expected = encoder.encode(TEXTS, prompt_name="document")
        stored = np.stack([index.get(item.id).vector for item in items])  # type: ignore[union-attr]
        np.testing.assert_allclose(stored, expected, atol=1e-6)
    documents = {item.id: item.text for item in items}
    queries = {"q1": TEXTS[7], "q2": TEXTS[20]}
    runs = [Dense(one, documents).search(queries, top_k=5) for one in (encoder, remote)]  # type: ignore[arg-type]
    for query, found in runs[0].items():
        assert runs[1][query] == pytest.approx(found, abs=1e-6)


def test_nodes_with_different_encoders_are_an_error(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_encode, "run_task", lambda function: ("0" * 32, 8, "fp32"))
    source = _write(tmp_path / "texts.jsonl", TEXTS)
    with pytest.raises(ray_encode.VerificationError, match="different encoders"):
        encode_on_ray(model, [source], tmp_path / "vectors", "auto")


def test_vectors_of_different_encoders_are_never_mixed(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder's folder may differ from node to node."""
    remote = RayEncoder(model, "auto")
    other = tiny_encoder("llama")
    monkeypatch.setattr(ray_encode.Encoder, "load", lambda *_, **__: other)
    ray_encode.encoder_of_node.cache_clear()
    with pytest.raises(ray_encode.VerificationError, match="different encoders"):
        remote.encode(TEXTS)


def test_the_commands(tmp_path: Path, model: str) -> None:
    make("gpt2").save(tmp_path / "tokenizer")
    corpus = _write(tmp_path / "corpus.jsonl", [*DOMAIN * 4, *GENERAL, " "])
    run, texts = CliRunner(), str(corpus)
    audited = ["audit", str(tmp_path / "tokenizer"), texts]
    for name, options in (("one", []), ("ray", ["--ray", "auto"])):
        done = run.invoke(app, [*audited, *options, "--terms", str(tmp_path / f"{name}.json")])
        assert done.exit_code == 0, done.output
        assert "skipped 1 records of the corpus: empty" in done.output
    done = run.invoke(app, [*audited, "--general", texts, "--ray", "auto"])
    assert "skipped 2 records of all texts: empty" in done.output
    assert (tmp_path / "ray.json").read_text() == (tmp_path / "one.json").read_text()
    out = tmp_path / "vectors"
    done = run.invoke(app, ["encode", model, texts, "-o", str(out), "--ray", "auto"])
    assert done.exit_code == 0, done.output
    assert "1 shards" in done.output
    done = run.invoke(app, ["encode", model, texts, "-o", "v.npy", "--ray", "a", "--codes", "int8"])
    assert isinstance(done.exception, InputError)
    done = run.invoke(app, ["encode", model, texts, "-o", str(tmp_path / "v.npy"), "--gpus", "1"])
    assert isinstance(done.exception, InputError)
