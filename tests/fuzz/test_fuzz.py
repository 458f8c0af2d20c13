"""The loop of `make fuzz` itself, and small tests of what it has found."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from formats import write_files
from fuzz import run
from fuzz.mutations import mutate, mutate_json
from fuzz.targets import TARGETS, Target
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.pipeline.settings import PipelineSettings
from idiolect.recommend.histories import Histories
from idiolect.recommend.recommender import Recommender
from idiolect.recommend.scorer import Popularity
from idiolect.search.diskann.disk.disk_graph import DiskGraph
from idiolect.search.diskann.graph import Graph
from idiolect.search.index import Index
from idiolect.text.tokenizers.extension import Extension
from idiolect.text.tokenizers.tiktoken import read_ranks
from idiolect.text.tokenizers.tokenizer import Tokenizer


def test_an_input_is_determined_by_target_seed_and_number() -> None:
    target = Target([b'{"a": [1, "two", null]}'], print, mutate_json)
    inputs = [run.input_of("x", target, 0, number) for number in range(200)]
    assert inputs == [run.input_of("x", target, 0, number) for number in range(200)]
    assert inputs != [run.input_of("x", target, 1, number) for number in range(200)]
    assert len(set(inputs)) > 100
    assert any(mutate([b"abc"], Random(number)) == b"abc" for number in range(50)), "some are valid"


def test_the_loop_survives_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(data: bytes) -> None:
        match data[0] % 4:
            case 0:
                raise InputError("refused")
            case 1:
                raise ValueError("a finding")
            case 2:
                import os

                os.kill(os.getpid(), 11)

    def mutation(_: Any, random: Random) -> bytes:
        return bytes([random.randrange(4)])

    monkeypatch.setitem(TARGETS, "made", lambda _: Target([b"x"], read, mutation))
    found = run.fuzz("made", 24, 0)
    assert found.inputs == 24
    assert found.counts["SIGSEGV"] > 0
    assert sum(n for kind, n in found.counts.items() if kind.startswith("ValueError at")) > 0
    assert found.read + sum(found.counts.values()) < 24, "refusals are no findings"
    again = run.fuzz("made", 24, 0)
    assert again.counts == found.counts


def _with_header(path: Path, change: Any) -> None:
    """Change the header of an index file, with a checksum that fits."""
    data = path.read_bytes()
    place, length = struct.unpack("<QQ", data[8:24])
    value = change(json.loads(data[place : place + length]))
    header = json.dumps(value).encode()
    digest = hashlib.blake2b(header, digest_size=16).digest()
    path.write_bytes(
        data[:8] + struct.pack("<QQ", place, len(header)) + digest + data[40:place] + header
    )


def _array(name: str, **changes: Any) -> Any:
    return lambda header: {
        **header,
        "arrays": [{**one, **changes} if one["name"] == name else one for one in header["arrays"]],
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda header: [],
        lambda header: {**header, "version": "2"},
        lambda header: {key: value for key, value in header.items() if key != "facts"},
        lambda header: {**header, "facts": {**header["facts"], "entry": 10**6}},
        lambda header: {**header, "facts": {**header["facts"], "dimension": 10**9}},
        lambda header: {**header, "facts": {**header["facts"], "dimension": "8"}},
        lambda header: {**header, "facts": {**header["facts"], "metric": 17}},
        lambda header: {**header, "facts": {}},
        lambda header: {**header, "arrays": header["arrays"][:-1]},
        _array("alive", shape=[3]),
        _array("alive", shape=[-1]),
        _array("alive", shape=[]),
        _array("alive", place=1 << 50),
        _array("alive", type="O"),
        _array("alive", sums=[]),
    ],
)
@pytest.mark.parametrize("kind", [Graph, DiskGraph])
def test_a_forged_header_of_an_index_is_refused(kind: Any, change: Any, tmp_path: Path) -> None:
    path = tmp_path / "graph"
    vectors = np.random.default_rng(0).standard_normal((12, 8), dtype=np.float32)
    if kind is Graph:
        Graph.build(vectors, degree=4).save(path)
    else:
        DiskGraph.write(path, vectors)
    kind.open(path)
    _with_header(path, lambda header: header)
    kind.open(path)
    _with_header(path, change)
    with pytest.raises(CheckpointError, match="is damaged"):
        kind.open(path)


@pytest.mark.parametrize("record", [{"size": "9"}, {"size": None}, {"added": [{"id": "x"}]}])
def test_an_extension_whose_ids_are_no_numbers_is_refused(record: dict[str, Any]) -> None:
    whole = Extension("exact", "x", 9, (), (), {}, (), (), {}).to_dict()
    token = {"id": 1, "text": "a", "pieces": [1], "kind": "word"}
    if "added" in record:
        record = {"added": [{**token, **record["added"][0]}]}
    with pytest.raises(CheckpointError, match="record of the extension is damaged"):
        Extension.from_dict({**whole, **record})


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM settings WHERE name = 'dimensions'",
        "UPDATE settings SET value = 'three' WHERE name = 'dimensions'",
        "DELETE FROM items WHERE row = 1",
        "UPDATE items SET metadata = '{' WHERE row = 1",
    ],
)
def test_a_ledger_that_lacks_what_it_needs_is_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "index"
    vectors = np.eye(3, dtype=np.float32)
    items = [{"id": str(n), "text": "a lamp", "vector": one} for n, one in enumerate(vectors)]
    Index.build(path, None, items).close()
    with closing(sqlite3.connect(path / "ledger.db")) as db, db:
        db.execute(change)
    with pytest.raises(CheckpointError, match=r"ledger\.db is damaged"), Index.open(path) as index:
        index.search("lamp", mode="lexical")


def test_a_message_of_sqlite_that_is_no_text_is_an_error_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index.build(path, None, [{"id": "a", "text": "a lamp", "vector": [1.0, 0.0]}]).close()
    ledger = path / "ledger.db"
    ledger.write_bytes(
        ledger.read_bytes().replace(b"CREATE TABLE settings", b"CREATE \xe9ABLE settings")
    )
    with pytest.raises(CheckpointError, match=r"ledger\.db is damaged"):
        Index.open(path)


@pytest.mark.parametrize(
    "ids",
    [
        {"users": "ab"},
        {"users": ["u"]},
        {"items": ["a"]},
        {"items": [["a"], 2, "c"]},
        {"texts": ["one"]},
        {"metadata": [1, 2, 3]},
    ],
)
def test_ids_of_a_recommender_that_do_not_fit_are_refused(
    ids: dict[str, Any], tmp_path: Path
) -> None:
    write_files.recommender(tmp_path)
    path = tmp_path / "ids.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **ids}))
    with pytest.raises(CheckpointError, match="is damaged"):
        Recommender.load(tmp_path)


@pytest.mark.parametrize("scored", [2, 5])
def test_a_scorer_of_other_items_is_refused(scored: int) -> None:
    offsets, events = np.array([0, 3, 5]), np.array([0, 1, 2, 0, 1])
    histories = Histories(("u", "v"), ("lamp", "pump", "chair"), offsets, events)
    record = {"model": "popularity", "split": "leave-one-out", "exclude_seen": True}
    recommender = Recommender(Popularity(np.arange(scored)), histories, record)
    with pytest.raises(CheckpointError, match=f"scores {scored} items, and its ids.json names 3"):
        recommender.recommend(["chair"])


def test_a_configuration_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "idiolect.toml"
    path.write_text(f"seed = {'[' * 3000}")
    with pytest.raises(ConfigError, match="recursion"):
        PipelineSettings.load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_hidden_layers": 2**63 - 1}, "layers is [0-9,]+ .10,000 at most"),
        ({"head_dim": 2**33}, "attention_head_size is [0-9,]+ .1,000,000 at most"),
        ({"num_hidden_layers": 9_000}, "more than [0-9,]+ tensors"),
        ({"intermediate_size": 2**63 - 1}, "no tensor has the size"),
        ({"intermediate_size": 2**63}, "no tensor has the size"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(
    tmp_path: Path, changed: dict[str, int], message: str
) -> None:
    write_files.small_model().save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ConfigError, match=message):
        LanguageModel.load(tmp_path)


def test_ranks_far_beyond_their_number_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r50k_base.tiktoken"
    ranks = TARGETS["tiktoken"](tmp_path).seeds[0]
    path.write_bytes(ranks)
    assert len(read_ranks(path)) == 260
    path.write_bytes(ranks.replace(b" 259\n", b" 2147483647\n"))
    with pytest.raises(CheckpointError, match="an id of 2147483647"):
        read_ranks(path)


def test_ids_of_a_vocabulary_far_beyond_their_number_are_refused(tmp_path: Path) -> None:
    """The engine takes memory for every number up to the highest, and aborts the process."""
    path = tmp_path / "tokenizer.json"
    pipeline = json.loads(TARGETS["tokenizer_json"](tmp_path).seeds[1])
    word = list(pipeline["model"]["vocab"])[-1]
    for highest, refused in ((700, False), (2**31, True)):
        pipeline["model"]["vocab"][word] = highest
        path.write_text(json.dumps(pipeline))
        if refused:
            with pytest.raises(CheckpointError, match=f"tokens and an id of {highest}"):
                Tokenizer.load(path)
        else:
            assert len(Tokenizer.load(path)) > 0
    names = ("vocab.json", "merges.txt")
    parts = TARGETS["vocab_and_merges"](tmp_path).seeds[0].split(b"\n====\n")
    for name, part in zip(names, parts, strict=True):
        (tmp_path / name).write_bytes(part.replace(b'"a": 0', b'"a": 4000000000'))
    with pytest.raises(CheckpointError, match="tokens and an id of 4000000000"):
        Tokenizer.load(tmp_path / "vocab.json")
