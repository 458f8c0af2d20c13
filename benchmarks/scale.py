"""Encoding on a two-node Ray cluster: time and the driver's memory at 1, 3 and 10 times the input.

    python benchmarks/scale.py TEXTS.jsonl [--documents 500] [--model minilm] [--layers 0]

Each row is a new driver that connects to one running cluster of two nodes with one processor each.
At the largest size, two local processes that encode half of the texts each are measured as well,
before and after the cluster's run; they give the rate of one processor. Processor seconds (user and
system) of each row are those of its driver alone, or of both local processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NODE_MEMORY = 200 << 20
PART_BYTES = 50_000


@contextmanager
def measured() -> Iterator[Callable[[dict[str, int]], None]]:
    """Measure a block; what it yields prints seconds, processor seconds and peak memory."""
    took: dict[str, float] = {}

    def report(counts: dict[str, int]) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**took, "peak_mb": peak, **counts}), flush=True)

    began, cpu = time.perf_counter(), time.process_time()
    yield report
    took |= {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def drive(model: str, source: str, out: str, address: str) -> None:
    """Encode on the cluster in this process, and print what it took."""
    from idiolect.scale.cluster import connect
    from idiolect.scale.ray_encode import encode_on_ray
    from idiolect.scale.ray_encoder import RayEncoder

    connect(address)
    RayEncoder(model, address).encode(["the nodes load the model"] * 1024)
    with measured() as report:
        shards = encode_on_ray(model, [source], out, address, part_bytes=PART_BYTES)
    report(shards.record["counts"])


def alone(model: str, source: str, out: str) -> None:
    """Encode in this process."""
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.text.corpus import Corpus

    encoder, counts = Encoder.load(model), EncodingCounts()
    encoder.encode(["the model is loaded"] * 16)
    with measured() as report:
        encoder.encode_to(out, Corpus(source), counts=counts)
    report(vars(counts))


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    )


def _result(process: subprocess.Popen[str]) -> dict[str, float]:
    output, _ = process.communicate()
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def _two_local(model: str, folder: Path, lines: list[str]) -> dict[str, float]:
    halves = []
    for i in range(2):
        (folder / f"half{i}.jsonl").write_text("".join(lines[i::2]))
        out = folder / f"half{i}.{time.time_ns()}.npy"
        halves.append(_start("alone", model, str(folder / f"half{i}.jsonl"), str(out)))
    found = [_result(one) for one in halves]
    return {
        "seconds": max(one["seconds"] for one in found),
        "cpu": sum(one["cpu"] for one in found),
        "tokens": sum(one["tokens"] for one in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--layers", type=int, default=None)
    options = parser.parse_args()
    from ray.cluster_utils import Cluster

    from idiolect.encoding.encoder import Encoder

    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), options.model
        if options.layers is not None:
            whole = Encoder.load(model)
            whole.with_changes(layers=options.layers).save(folder / "model")
            model = str(folder / "model")
        with options.texts.open() as file:
            first = [line for line, _ in zip(file, range(options.documents), strict=False)]
        nodes = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1, "object_store_memory": NODE_MEMORY, "include_dashboard": False,
            },
        )  # fmt: skip
        try:
            nodes.add_node(num_cpus=1, object_store_memory=NODE_MEMORY)
            local = [_two_local(model, folder, first * 10)]
            rows = {}
            for times in (1, 3, 10):
                source = folder / f"{times}.jsonl"
                source.write_text("".join(first * times))
                out = str(folder / f"vectors{times}")
                rows[times] = _result(_start("drive", model, str(source), out, nodes.address))
                print(f"{times:3}x", json.dumps(rows[times]), flush=True)
            local.append(_two_local(model, folder, first * 10))
        finally:
            nodes.shutdown()
        print("two local processes, before and after:", json.dumps(local))
        mean = sum(one["seconds"] for one in local) / 2
        print(f"tokens per second and local process: {local[0]['tokens'] / mean / 2:,.0f}")
        print(f"ratio to two local processes at 10x: {rows[10]['seconds'] / mean:.2f}")
        print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    if sys.argv[1:2] == ["drive"]:
        drive(*sys.argv[2:])
    elif sys.argv[1:2] == ["alone"]:
        alone(*sys.argv[2:])
    else:
        main()
