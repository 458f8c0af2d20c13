"""A two-node Ray cluster and a loopback S3: the results of one process, also if a node is lost."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest
from typer.testing import CliRunner

from encoding.models import tiny_encoder
from idiolect.cli.main import app
from idiolect.encoding.encoder import Encoder
from idiolect.scale.cluster import map_parts
from idiolect.scale.ray_audit import audit_on_ray
from idiolect.scale.ray_encode import encode_on_ray
from idiolect.scale.ray_encoder import RayEncoder
from idiolect.scale.ray_train import launch_training
from idiolect.scale.storage import Storage
from idiolect.text.corpus import Corpus
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.audit.audit_report import audit_record
from scale.clusters import cluster
from training import models
from vocabulary.conftest import DOMAIN, GENERAL, make

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray and moto
pytest.importorskip("ray", reason="Ray is not installed")

TEXTS = [" ".join(f"w{(i * j) % 23}" for j in range(1, 3 + i % 9)) for i in range(120)]
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URI of a folder in a loopback S3."""
    pytest.importorskip("moto.server", reason="moto is not installed")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    _host, port = server.get_host_and_port()
    os.environ |= {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    pafs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True
    ).create_dir("bucket")
    yield "s3://bucket/folder"
    server.stop()
    del os.environ["AWS_ENDPOINT_URL"]


@pytest.fixture(scope="module")
def nodes(s3: str) -> Iterator[Any]:
    with cluster(2) as started:  # the nodes inherit the environment of the store
        yield started


def _lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def _model(folder: Path) -> Path:
    tiny_encoder().save(folder / "encoder")
    return folder / "encoder"


def test_a_corpus_in_a_store_is_encoded_into_it(nodes: Any, s3: str, tmp_path: Path) -> None:
    model = _model(tmp_path)
    for file in model.rglob("*"):
        if file.is_file():
            (Storage.of(f"{s3}/model") / str(file.relative_to(model))).write(file)
    (Storage.of(s3) / "corpus" / "texts.jsonl").write(_lines(TEXTS))
    shards = encode_on_ray(
        f"{s3}/model", [f"{s3}/corpus"], f"{s3}/vectors", nodes.address, part_bytes=700
    )
    assert len(shards.record["shards"]) > 4
    expected = Encoder.load(model).encode(TEXTS)
    np.testing.assert_allclose(shards.array(), expected, atol=1e-6)
    remote = RayEncoder(f"{s3}/model", nodes.address)
    np.testing.assert_allclose(remote.encode(TEXTS[:300]), expected, atol=1e-6)


def test_an_upload_cut_short_is_never_visible(s3: str, tmp_path: Path) -> None:
    target = Storage.of(f"{s3}/cut/file")
    target.write(b"complete")

    class Cut(type(tmp_path)):  # type: ignore[misc]
        def open(self, *_: object, **__: object) -> Any:
            file = Path(self).open("rb")  # noqa: SIM115
            reads = iter([file.read(6 << 20)])

            class Half:
                def __enter__(self) -> Any:
                    return self

                def __exit__(self, *_: object) -> None:
                    file.close()

                def read(self, size: int) -> bytes:
                    try:
                        return next(reads)
                    except StopIteration:
                        raise ConnectionError("the line is cut") from None

            return Half()

    source = tmp_path / "large"
    source.write_bytes(os.urandom(8 << 20))
    with pytest.raises(ConnectionError, match="cut"):
        target.write(Cut(source))
    assert target.read() == b"complete"
    assert [one.name for one in Storage.of(f"{s3}/cut").list()] == ["file"]


def test_an_audit_on_two_nodes_is_that_of_one_process(nodes: Any, s3: str, tmp_path: Path) -> None:
    make("gpt2").save(tmp_path / "tokenizer")
    (tmp_path / "corpus.jsonl").write_bytes(_lines([*DOMAIN * 8, *GENERAL]))
    (Storage.of(s3) / "audited" / "corpus.jsonl").write(tmp_path / "corpus.jsonl")
    one = audit(make("gpt2"), Corpus(tmp_path / "corpus.jsonl"))
    two = audit_on_ray(
        str(tmp_path / "tokenizer"), [f"{s3}/audited"], nodes.address, part_bytes=2000
    )
    assert audit_record(two) == audit_record(one)
    assert list(two.choose(30)) == list(one.choose(30))


def _losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_training_is_launched_on_two_nodes(nodes: Any, tmp_path: Path) -> None:
    models.model("llama").save(tmp_path / "model")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(_lines(models.texts()))
    options = ["--train", "all", "--steps", "3", "--batch-size", "4", "--max-length", "32"]
    command = ["pretrain", str(tmp_path / "model"), str(corpus), *options]
    launch_training([*command, "--sharded", "-o", str(tmp_path / "two")], nodes.address, workers=2)
    assert CliRunner().invoke(app, [*command, "-o", str(tmp_path / "one")]).exit_code == 0
    one, two = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert len(one) == 3
    assert two == pytest.approx(one, abs=1e-5)


def test_a_node_that_is_lost_changes_nothing(nodes: Any, tmp_path: Path) -> None:
    extra = nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
    marks = tmp_path / "marks"
    marks.mkdir()

    def slow(part: int) -> tuple[int, bytes]:
        (marks / f"{part}.{os.getpid()}").touch()
        time.sleep(0.5)
        return part, bytes([part]) * 200_000

    def kill() -> None:
        while len(list(marks.iterdir())) < 8:
            time.sleep(0.1)
        nodes.remove_node(extra, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    found = list(map_parts(slow, list(range(40))))
    killer.join()
    assert found == [(part, bytes([part]) * 200_000) for part in range(40)]
    assert len(list(marks.iterdir())) >= 40
