"""The figures of the handbook that are of the demo, from the metrics of a finished run of it.

    idiolect demo --out RUN
    python benchmarks/record.py demo_figures RUN

No figure is a time, so other programs may run meanwhile.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from record import figure


def main() -> None:
    """Print the figures of a run."""
    metrics = json.loads((Path(sys.argv[1]) / "metrics.json").read_text(encoding="utf-8"))
    evaluate = metrics["evaluate"]
    promises, bits = evaluate["promises"], evaluate["language"]["systems"]
    search = {one["name"]: one["search"]["ndcg@10"] for one in evaluate["systems"] if one["search"]}
    changed = promises["documents_changed"] or "none"
    rows = "identical" if promises["original_rows_identical"] else "changed"
    saved = evaluate["tokens"]["domain"]["saved"]
    found = {
        "demo.documents": (
            f"{changed} of {promises['documents_checked']:,}",
            "documents without new terms whose ids changed in the demo",
        ),
        "demo.rows": (rows, "original rows of every model of the demo, by hash"),
        "demo.saved": (f"{saved:.1%}", "tokens that new ones save in the demo's held-out text"),
        "demo.bits.with": (
            f"{bits['pretraining']['domain']:.2f}",
            "bits per byte of the demo's catalogue after pre-training, with new tokens",
        ),
        "demo.bits.without": (
            f"{bits['plain.pretraining']['domain']:.2f}",
            "the same without new tokens",
        ),
        "demo.dense.base": (
            f"{search['base']:.3f}",
            "demo, vector search with the base's rows averaged and whitened, nDCG@10",
        ),
        "demo.dense": (f"{search['tuning']:.3f}", "the same after tuning"),
    }
    for key, (value, what) in found.items():
        figure(key, value, what)
        print(f"{what}: {value}")


if __name__ == "__main__":
    main()
