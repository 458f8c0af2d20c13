"""What is fuzzed: for each kind of input small valid ones, how they are broken, and who reads them.

A target is a function that gets an empty folder and returns its seeds, its mutation and its reader.
It runs in a process of its own, so it may keep what it loads.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from formats.write_files import TEXTS, small_model
from fuzz.mutations import mutate, mutate_framed_json, mutate_json

__all__ = ["TARGETS", "Target"]

Mutation = Callable[[Sequence[bytes], Random], bytes]


@dataclass(frozen=True)
class Target:
    """A kind of input."""

    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    """Reads an input; only errors of the package may come out."""
    mutation: Mutation = mutate


def _tokenizer_file(name: str, seeds: Sequence[bytes], mutation: Mutation = mutate) -> Any:
    def target(folder: Path) -> Target:
        from idiolect.text.tokenizers.tokenizer import Tokenizer

        def read(data: bytes) -> None:
            (folder / name).write_bytes(data)
            tokenizer = Tokenizer.load(folder / name)
            tokenizer.decode(tokenizer.encode("a lamp for the gärden\n\0 <s> 42"))

        return Target(seeds, read, mutation)

    return target


def tokenizer_json(folder: Path) -> Target:
    from idiolect.text.tokenizers import bpe, unigram, wordpiece

    engines = [
        kind.train(TEXTS, size) for kind, size in ((bpe, 265), (wordpiece, 60), (unigram, 60))
    ]
    seeds = [one.engine.to_str().encode() for one in engines]
    target: Target = _tokenizer_file("tokenizer.json", seeds, mutate_json)(folder)
    return target


def vocab_and_merges(folder: Path) -> Target:
    from idiolect.text.tokenizers.tokenizer import Tokenizer

    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "Ġ": 5, "Ġa": 6}
    seed = json.dumps(vocabulary).encode() + b"\n====\n#version: 0.2\na b\nab c\n\xc4\xa0 a\n"

    def read(data: bytes) -> None:
        first, _, second = data.partition(b"\n====\n")
        (folder / "vocab.json").write_bytes(first)
        (folder / "merges.txt").write_bytes(second)
        Tokenizer.load(folder / "vocab.json").encode("abc a b")

    return Target([seed], read)


def sentencepiece_model(folder: Path) -> Target:
    import sentencepiece

    seeds = []
    for kind in ("unigram", "bpe"):
        stream = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 3), model_writer=stream, vocab_size=32, model_type=kind,
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        seeds.append(stream.getvalue())
    target: Target = _tokenizer_file("tokenizer.model", seeds)(folder)
    return target


def safetensors(folder: Path) -> Target:
    from idiolect.models.language_model import LanguageModel

    small_model().save(folder)
    path = folder / "model.safetensors"
    seed = path.read_bytes()
    (length,) = struct.unpack("<Q", seed[:8])
    rest = seed[8 + length :]

    def frame(header: bytes) -> bytes:
        return struct.pack("<Q", len(header)) + header + rest

    def mutation(seeds: Sequence[bytes], random: Random) -> bytes:
        if random.random() < 0.4:
            return mutate(seeds, random)
        return mutate_framed_json(seed, random, start=8, length=length, frame=frame)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        LanguageModel.load(folder)

    return Target([seed], read, mutation)


def config_json(folder: Path) -> Target:
    from idiolect.models.language_model import LanguageModel

    small_model().save(folder)
    path = folder / "config.json"
    seed = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        LanguageModel.load(folder)

    return Target([seed], read, mutate_json)


def gguf(folder: Path) -> Target:
    from idiolect.models.gguf.gguf_export import export_gguf
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.tokenizers.gguf.gguf_header import read_gguf_header

    path = folder / "model.gguf"
    export_gguf(small_model(), path, precision="f32")
    seed = path.read_bytes()
    end = min(entry.offset for entry in read_gguf_header(path).tensors.values())

    def mutation(seeds: Sequence[bytes], random: Random) -> bytes:
        head = mutate([seed[:end]], random)
        return head + seed[end:] if len(head) == end or random.random() < 0.5 else head

    def read(data: bytes) -> None:
        path.write_bytes(data)
        LanguageModel.load(path)

    return Target([seed], read, mutation)


def config_toml(folder: Path) -> Target:
    from idiolect.pipeline.pipeline_config import PipelineConfig
    from pipeline.shop import CONFIG

    path = folder / "idiolect.toml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        PipelineConfig.load(path)

    return Target([CONFIG.encode(), b'[data]\nitems = "items.jsonl"\n'], read)


def filters(folder: Path) -> Target:
    from idiolect.search.index import Index

    items = [
        {"id": str(number), "text": text, "vector": [1.0, float(number)],
         "metadata": {"price": number, "kind": "lamp", "tags": ["a", "b"], "new": number > 4}}
        for number, text in enumerate(TEXTS)
    ]  # fmt: skip
    index = Index.build(folder / "index", None, items)
    seeds = [
        b'{"price": {"$gte": 1, "$lt": 5.5}, "kind": {"$in": ["lamp", 3, true]}}',
        b'{"$or": [{"new": true}, {"$not": {"tags": {"$nin": ["a"]}}}], "x": {"$exists": false}}',
        b'{"$and": [{"price": {"$ne": 2}}, {"kind": {"$not": {"$eq": "x"}}}], "price": {"$gt": 0}}',
    ]

    def read(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        index.search("lamp", filter=text, mode="lexical")

    return Target(seeds, read, mutate_json)


def _records(ending: str, seeds: Callable[[], Sequence[bytes]], mutation: Mutation = mutate) -> Any:
    def target(folder: Path) -> Target:
        from collections import Counter

        from idiolect.text.records import read_all_records, read_documents

        path = folder / f"records.{ending}"

        def read(data: bytes) -> None:
            path.write_bytes(data)
            list(read_all_records(path))
            list(read_documents(path, (), "line", 1 << 20, Counter()))

        return Target(seeds(), read, mutation)

    return target


def _parquet() -> Sequence[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = (
        {"id": ["a", "b"], "text": ["one text", None]},
        {"id": [1, 2], "text": ["x", "y"], "tags": [["a"], []], "at": [1.5, None]},
    )
    seeds = []
    for table in tables:
        stream = io.BytesIO()
        pq.write_table(pa.table(table), stream)
        seeds.append(stream.getvalue())
    return seeds


def _array_file(kind: str) -> Any:
    def target(folder: Path) -> Target:
        from idiolect.search.diskann.disk.disk_graph import DiskGraph
        from idiolect.search.diskann.graph import Graph

        path = folder / "graph"
        vectors = np.random.default_rng(0).standard_normal((12, 8), dtype=np.float32)
        if kind == "graph":
            Graph.build(vectors, degree=4).save(path)
        else:
            DiskGraph.write(path, vectors)
        seed = path.read_bytes()
        place, length = struct.unpack("<QQ", seed[8:24])

        def frame(header: bytes) -> bytes:
            digest = hashlib.blake2b(header, digest_size=16).digest()
            head = seed[:8] + struct.pack("<QQ", place, len(header)) + digest
            return head + seed[40:place] + header

        def mutation(seeds: Sequence[bytes], random: Random) -> bytes:
            if random.random() < 0.4:
                return mutate(seeds, random)
            return mutate_framed_json(seed, random, start=place, length=length, frame=frame)

        def read(data: bytes) -> None:
            path.write_bytes(data)
            opened = (Graph if kind == "graph" else DiskGraph).open(path)
            if opened.rows == 12:
                opened.search(vectors[:2], 3)

        return Target([seed], read, mutation)

    return target


def ledger(folder: Path) -> Target:
    from idiolect.search.index import Index

    vectors = np.eye(4, dtype=np.float32)
    items = [{"id": str(n), "text": t, "vector": vectors[n]} for n, t in enumerate(TEXTS[:4])]
    Index.build(folder / "index", None, items).close()
    path = folder / "index" / "ledger.db"
    seed = path.read_bytes()

    def read(data: bytes) -> None:
        for other in path.parent.glob("ledger.db-*"):
            other.unlink()
        path.write_bytes(data)
        with Index.open(path.parent) as index:
            index.search("lamp", mode="lexical")

    return Target([seed], read)


def word_vectors(folder: Path) -> Target:
    from idiolect.words.word_vectors import WordVectors

    vectors = WordVectors(["lamp", "pump", "gärden"], np.eye(3, dtype=np.float32))
    seeds = []
    for name in ("words.safetensors", "words.txt", "words.bin"):
        vectors.save(folder / name)
        seeds.append((folder / name).read_bytes())

    def read(data: bytes) -> None:
        (folder / "words").write_bytes(data)
        WordVectors.load(folder / "words")

    return Target(seeds, read)


def records_of_models(folder: Path) -> Target:
    """The JSON files beside models: the input names which one it replaces."""
    from formats import write_files
    from formats.test_older_files import READERS, RECORDS

    seeds, files = [], []
    for name, records in RECORDS.items():
        made = folder / name
        getattr(write_files, name)(made)
        files += [(name, record) for record in records]
    if (folder / "recommender" / "ids.json").exists():
        files.append(("recommender", "ids.json"))
    seeds = [(folder / name / record).read_bytes() for name, record in files]

    def mutation(_: Sequence[bytes], random: Random) -> bytes:
        place = random.randrange(len(files))
        return bytes([place]) + mutate_json([seeds[place]], random)

    def read(data: bytes) -> None:
        name, record = files[data[0]]
        path = folder / name / record
        try:
            path.write_bytes(data[1:])
            READERS[name](folder / name)
        finally:
            path.write_bytes(seeds[data[0]])

    return Target(seeds, read, mutation)


def http(folder: Path) -> Target:
    from fastapi.testclient import TestClient

    from idiolect.serve.app import create_app
    from idiolect.serve.serve_settings import ServeSettings
    from serve import served

    served.write_index(folder)
    served.write_language_model(folder / "writer")
    settings = ServeSettings(
        path=str(folder / "index"), generator=str(folder / "writer"), max_new_tokens=8
    )
    client = TestClient(create_app(settings), raise_server_exceptions=False)
    client.__enter__()
    requests = [
        (
            "/search",
            {"query": "a b", "top_k": 2, "filter": {"price": {"$lt": 50}}, "mode": "hybrid"},
        ),
        ("/similar", {"id": "p1", "top_k": 2}),
        ("/v1/embeddings", {"input": ["a b", "c"], "model": "x", "encoding_format": "float"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}),
        ("/v1/completions", {"prompt": "a b", "max_tokens": 2, "temperature": 0.5, "stop": ["b"]}),
        ("/v1/rerank", {"query": "a", "documents": ["b c", {"text": "d"}], "top_n": 1}),
        ("/rerank", {"query": "a", "documents": ["b c"], "top_n": 1}),
        ("/query", {"vector": [0.5] * 8, "topK": 2, "includeMetadata": True}),
        ("/tokenize", {"text": "a b c"}),
        ("/answer", {"question": "a b", "top_k": 2}),
    ]
    known = client.get("/openapi.json").json()["paths"]
    seeds = [json.dumps([path, body]).encode() for path, body in requests if path in known]

    def mutation(_: Sequence[bytes], random: Random) -> bytes:
        path, body = json.loads(random.choice(seeds))
        return path.encode() + b"\n" + mutate_json([json.dumps(body).encode()], random)

    def read(data: bytes) -> None:
        path, _, body = data.partition(b"\n")
        headers = {"Content-Type": "application/json"}
        answer = client.post(path.decode(), content=body, headers=headers)
        if answer.status_code >= 500 and answer.status_code != 503:
            raise AssertionError(f"{path.decode()}: {answer.status_code} {answer.text[:300]}")

    return Target(seeds, read, mutation)


_CSV = [b'id,text,price\na,one text,3\nb,"two, texts",\n', b"id;text\n1;x\n2;y\n", b"text\nalone\n"]
_JSONL = [b'{"id": "a", "text": "one"}\n{"id": 2, "text": "two", "x": [1, {"y": null}]}\n']
_JSON = [b'[{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]', b'{"data": [{"text": "x"}]}']
_TIKTOKEN_PARTS = [*(bytes([byte]) for byte in range(256)), b" a", b"la", b"mp", b"lamp"]
_RANKS = [b"".join(b"%s %d\n" % (b64encode(p), r) for r, p in enumerate(_TIKTOKEN_PARTS))]
_VOCAB = [b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##c\nlamp\n"]

TARGETS: dict[str, Callable[[Path], Target]] = {
    "tokenizer_json": tokenizer_json,
    "vocab_and_merges": vocab_and_merges,
    "vocab_txt": _tokenizer_file("vocab.txt", _VOCAB),
    "sentencepiece_model": sentencepiece_model,
    "tiktoken": _tokenizer_file("r50k_base.tiktoken", _RANKS),
    "safetensors": safetensors,
    "config_json": config_json,
    "gguf": gguf,
    "config_toml": config_toml,
    "filters": filters,
    "csv": _records("csv", lambda: _CSV),
    "jsonl": _records("jsonl", lambda: _JSONL),
    "json": _records("json", lambda: _JSON),
    "parquet": _records("parquet", _parquet),
    "graph": _array_file("graph"),
    "disk_graph": _array_file("disk_graph"),
    "ledger": ledger,
    "word_vectors": word_vectors,
    "records_of_models": records_of_models,
    "http": http,
}
