"""PubMedQA by label probability: `python benchmarks/answers_pubmedqa.py DATA [--model smollm2]`.

Each question is answered by the likeliest of " yes", " no" and " maybe" after its prompt, with its
abstract and without. A linear map of the three log-probabilities (vector scaling) is fitted to the
500 questions outside the test list, and measured on the 500 inside. Scores are appended to a file,
so a killed run resumes.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

LABELS = ("yes", "no", "maybe")


def score(data: Path, model: str, out: Path, most: int) -> dict[str, dict]:
    from idiolect import Generator
    from idiolect.tasks.harness.likelihood import score_endings

    done = {}
    if out.exists():
        done = {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}
    questions = json.loads(gzip.decompress((data / "ori_pqal.json.gz").read_bytes()))
    test = json.loads((data / "test_ground_truth.json").read_text())
    halves = [[id for id in questions if (id in test) is inside][:most] for inside in (True, False)]
    generator = None
    with out.open("a") as file:
        for number, id in enumerate(id for pair in zip(*halves, strict=True) for id in pair):
            one = questions[id]
            if id in done:
                continue
            generator = generator or Generator(model)
            row = {"id": id, "gold": one["final_decision"]}
            asked = f"Question: {one['QUESTION']}\nAnswer (yes, no or maybe):"
            text = " ".join(one["CONTEXTS"])
            for name, prompt in (("none", asked), ("context", f"{text}\n\n{asked}")):
                found = score_endings(generator, [(prompt, f" {label}") for label in LABELS])
                row[name] = [likelihood.total for likelihood in found]
            done[id] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            if number % 10 == 0:
                print(number, flush=True)
    return done


def fit(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return a weight for each label's log-probability and a bias, by maximum likelihood."""

    def loss(weights: np.ndarray) -> float:
        logits = scores * weights[:3] + weights[3:]
        logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return -logits[np.arange(len(gold)), gold].mean() + 0.001 * float(weights @ weights)

    return minimize(loss, np.r_[np.ones(3), np.zeros(3)]).x


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--questions", type=int, default=500, help="of each half")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, default=Path("pubmedqa_scores.jsonl"))
    arguments = parser.parse_args()
    rows = score(arguments.data, arguments.model, arguments.out, arguments.questions)
    test = json.loads((arguments.data / "test_ground_truth.json").read_text())
    gold = np.array([LABELS.index(row["gold"]) for row in rows.values()])
    held = np.array([id in test for id in rows])
    print(f"{held.sum()} test questions, {(~held).sum()} to calibrate on")
    print(f"majority (yes)               {np.mean(gold[held] == 0):.3f}")
    for name in ("none", "context"):
        scores = np.array([row[name] for row in rows.values()])
        plain = scores.argmax(1)
        weights = fit(scores[~held], gold[~held])
        mapped = (scores * weights[:3] + weights[3:]).argmax(1)
        for what, found in (("", plain), (", calibrated", mapped)):
            right = (found == gold)[held]
            counts = np.bincount(found[held], minlength=3).tolist()
            error = 1.96 * right.std() / np.sqrt(len(right))
            print(f"{name + what:<28} {right.mean():.3f} ± {error:.3f}  yes/no/maybe {counts}")


if __name__ == "__main__":
    main()
