"""The figures of the handbook that are of the study of SmolLM2, from what its steps have written.

    PYTHONPATH=examples python -m smollm2 DATA OUT
    python benchmarks/record.py study_figures OUT

No figure is a time, so other programs may run meanwhile. What was not run is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from record import figure

SEEDS = 3
TEXTS = {
    "icecat": "held-out product texts (Icecat)",
    "scifact": "SumPubMed and SciFact",
    "demo": "the NumPy and SciPy API",
}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def ndcg(folder: Path, tokens: str) -> float:
    """Return the mean nDCG@10 on unseen items of the tuned static encoders of a collection."""
    unseen = read(folder / "words.json")["unseen"]
    runs = [read(folder / f"static.{tokens}.tuning.{seed}.json") for seed in range(SEEDS)]
    return fmean(run["queries"]["dense"]["ndcg@10"][one] for run in runs for one in unseen)


def main() -> None:
    """Print the figures of a study."""
    out = Path(sys.argv[1])
    found: dict[str, tuple[str, str]] = {}
    for name, text in TEXTS.items():
        if (out / name / "vocabulary.json").exists():
            saving = read(out / name / "vocabulary.json")["new"]["checks"]["domain"]["saving"]
            what = f"tokens saved on {text} by 1,000 new tokens in SmolLM2"
            found[f"saved.{name}"] = (f"{100 * saving:.1f} %", what)
    what = "bits per byte of SumPubMed and SciFact, SmolLM2"
    steps = {
        "base": ("none", "base", "as published"),
        "none": ("none", "pretraining", "after continued pre-training without new tokens"),
        "new": ("new", "pretraining", "after the same training with 1,000 new tokens"),
    }
    for key, (tokens, step, how) in steps.items():
        path = out / "scifact" / f"adapted.{tokens}" / "language.json"
        if path.exists():
            bits = read(path)[step]["domain"]["bits_per_byte"]
            found[f"bits.scifact.{key}"] = (f"{bits:.2f}", f"{what} {how}")
    folders = [path.parent for path in sorted(out.glob(f"*/static.new.tuning.{SEEDS - 1}.json"))]
    if folders:
        changes = [ndcg(folder, "new") - ndcg(folder, "none") for folder in folders]
        found["newtokens.search"] = (
            f"{min(changes):+.3f} to {max(changes):+.3f}",
            f"nDCG@10 of a tuned static encoder, with 1,000 new tokens minus without, "
            f"{len(folders)} collections, {SEEDS} seeds",
        )
    for key, (value, what) in found.items():
        figure(key, value, what)
        print(f"{what}: {value}")


if __name__ == "__main__":
    main()
