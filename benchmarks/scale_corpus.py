"""Audit and encode a whole corpus on a two-node Ray cluster, and compare with one process.

    python benchmarks/scale_corpus.py TEXTS.jsonl OUT --model MODEL --tokenizer TOKENIZER \
        [--field abstract] [--max-length 128] [--steps one two ray killed]

one     audit and encode in one process
two     encode in two processes with half of the texts each, before and after the cluster's run
ray     audit and encode on two nodes of one processor; also a tenth of the texts
killed  encode on two nodes, of which one is killed when a third of the shards are there

Each step runs in a process of its own and leaves OUT/STEP.json, so a stopped run goes on. The end
compares: all fields of the audit, the chosen terms, the counts, and the vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scale import NODE_MEMORY, alone, measured

PART_BYTES = 1 << 20
TERMS = 1_000


def audit_here(tokenizer: str, source: str, out: str) -> None:
    """Audit in this process."""
    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.audit.audit import audit

    with measured() as report:
        found = audit(Tokenizer.load(tokenizer), Corpus(source))
    _write_audit(found, out)
    report({})


def audit_there(tokenizer: str, source: str, out: str, address: str) -> None:
    """Audit on the cluster."""
    from idiolect.scale.ray_audit import audit_on_ray

    with measured() as report:
        found = audit_on_ray(tokenizer, [source], address, part_bytes=PART_BYTES)
    _write_audit(found, out)
    report({})


def _write_audit(found: Any, out: str) -> None:
    from idiolect.vocabulary.audit.audit_report import audit_record

    terms = [str(term) for term in found.choose(TERMS)]
    Path(out).write_text(json.dumps({"audit": audit_record(found), "terms": terms}, default=str))


def encode_there(model: str, source: str, out: str, address: str) -> None:
    """Encode on the cluster, whose nodes have loaded the model before."""
    from idiolect.scale.cluster import connect
    from idiolect.scale.ray_encode import encode_on_ray
    from idiolect.scale.ray_encoder import RayEncoder

    connect(address)
    RayEncoder(model, address).encode(["the nodes load the model"] * 1024)
    with measured() as report:
        shards = encode_on_ray(model, [source], out, address, part_bytes=PART_BYTES)
    report(shards.record["counts"])


WORK = {f.__name__: f for f in (audit_here, audit_there, encode_there, alone)}


def start(name: str, *arguments: object) -> subprocess.Popen[str]:
    """Start one of the functions of `WORK` in a process of its own."""
    command = [sys.executable, __file__, "do", name, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a process, and return the JSON object on its last line."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


@contextmanager
def cluster() -> Iterator[tuple[Any, Any]]:
    """Start two nodes of one processor; yield the cluster and its second node."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": NODE_MEMORY}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        yield nodes, nodes.add_node(**node)
    finally:
        nodes.shutdown()


class Comparison:
    """The steps of the comparison.

    Args:
        out: Output folder.
        texts: The corpus, JSON Lines with a field `text`.
        model: Folder of the encoder.
        tokenizer: Name or folder of the tokenizer to audit.
    """

    def __init__(self, out: Path, texts: Path, model: str, tokenizer: str) -> None:
        self.out, self.texts, self.model, self.tokenizer = out, texts, model, tokenizer

    def one(self) -> dict[str, Any]:
        """Audit and encode in one process."""
        found = {"audit": result(start("audit_here", self.tokenizer, self.texts, self.at("one.a")))}
        path = self.at("one.npy")
        return found | {"encode": result(start("alone", self.model, self.texts, path))}

    def halves(self) -> float:
        """Encode half of the texts in each of two processes; return the seconds of the slower."""
        lines = self.texts.read_text(encoding="utf-8").splitlines(keepends=True)
        with tempfile.TemporaryDirectory() as folder:
            runs = []
            for i in range(2):
                half = Path(folder) / f"{i}.jsonl"
                half.write_text("".join(lines[i::2]), encoding="utf-8")
                runs.append(start("alone", self.model, half, half.with_suffix(".npy")))
            return max(float(result(run)["seconds"]) for run in runs)

    def two(self) -> dict[str, Any]:
        """Encode in two processes without Ray; the step `ray` repeats this at its end."""
        return {"seconds": self.halves()}

    def ray(self) -> dict[str, Any]:
        """Audit and encode on two nodes."""
        tenth = self.at("tenth.jsonl")
        lines = self.texts.read_text(encoding="utf-8").splitlines(keepends=True)
        tenth.write_text("".join(lines[: len(lines) // 10]), encoding="utf-8")
        found = {}
        with cluster() as (nodes, _):
            for name, source in (("tenth", tenth), ("whole", self.texts)):
                runs = (
                    ("audit_there", self.tokenizer, self.at(f"ray.{name}.a")),
                    ("encode_there", self.model, self.at(f"ray.{name}.vectors")),
                )
                for work, first, target in runs:
                    done = result(start(work, first, source, target, nodes.address))
                    found[f"{name}, {work}"] = done
        return found | {"two after it": self.halves()}

    def killed(self) -> dict[str, Any]:
        """Encode on two nodes, and kill one of them."""
        target, parts = self.at("killed.vectors"), self.texts.stat().st_size // PART_BYTES
        with cluster() as (nodes, second):
            run = start("encode_there", self.model, self.texts, target, nodes.address)

            def kill() -> None:
                while len(list(target.glob("part-*.parquet"))) < parts // 3:
                    time.sleep(0.2)
                nodes.remove_node(second, allow_graceful=False)
                print("killed a node", len(list(target.glob("part-*.parquet"))), flush=True)

            killer = threading.Thread(target=kill, daemon=True)
            killer.start()
            return result(run)

    def at(self, name: str) -> Path:
        """Return a path in the output folder."""
        return self.out / name

    def step(self, name: str) -> None:
        """Run a step unless its result exists, and print the result."""
        path = self.at(f"{name}.json")
        if not path.exists():
            found = getattr(self, name)()
            found["load"] = os.getloadavg()[0]
            path.write_text(json.dumps(found))
        print(name, path.read_text(), flush=True)

    def compare(self) -> None:
        """Print the differences between one process and the cluster."""
        from idiolect.scale.vector_shards import VectorShards

        one, ray = (json.loads(self.at(name).read_text()) for name in ("one.a", "ray.whole.a"))
        fields = one["audit"]
        equal = sum(ray["audit"].get(name) == fields[name] for name in fields)
        print(f"audit: {equal} of {len(fields)} fields equal")
        print(
            f"terms: {'equal' if one['terms'] == ray['terms'] else 'differ'} ({len(one['terms'])})"
        )
        expected = np.load(self.at("one.npy"))
        for name in ("ray.whole.vectors", "killed.vectors"):
            if not (self.at(name) / "vectors.json").exists():
                continue
            shards = VectorShards.open(str(self.at(name)))
            found, gap, rows = shards.record["counts"], 0.0, 0
            for block in shards.blocks():
                part = expected[rows : rows + len(block)]
                gap, rows = max(gap, float(np.abs(block - part).max())), rows + len(block)
            print(f"{name}: {rows:,} of {len(expected):,} vectors, largest difference {gap:.1g}")
            print(f"  counts {found}")


def main() -> None:
    """Run the steps, and compare."""
    steps = ("one", "two", "ray", "killed")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--field", default="text")
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--steps", nargs="*", choices=steps, default=steps)
    given = parser.parse_args()
    from idiolect.encoding.encoder import Encoder
    from idiolect.text.corpus import Corpus

    given.out.mkdir(parents=True, exist_ok=True)
    texts, model = given.out / "texts.jsonl", given.out / "model"
    if not texts.exists():
        lines = (json.dumps({"text": text}) for text in Corpus(given.texts, field=given.field))
        texts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if not model.exists():
        whole = Encoder.load(given.model)
        changes = {} if given.max_length is None else {"max_length": given.max_length}
        whole.with_changes(**changes).save(model)
    comparison = Comparison(given.out, texts, str(model), given.tokenizer)
    for name in given.steps:
        comparison.step(name)
    if all(comparison.at(f"{name}.json").exists() for name in ("one", "ray")):
        comparison.compare()


if __name__ == "__main__":
    if sys.argv[1:2] == ["do"]:
        WORK[sys.argv[2]](*sys.argv[3:])
    else:
        main()
