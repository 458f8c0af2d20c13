"""Reward models on real preferences, by cross-validation over prompts, beside two baselines.

    python benchmarks/reward_models.py DATA OUT hh autoj alpaca --base minilm --limit 1000
    python benchmarks/reward_models.py DATA OUT --judge
    python benchmarks/reward_models.py DATA OUT --table

DATA is the folder of public data sets. The sets are HH-RLHF's harmless test (people), Auto-J's test
(people) and AlpacaEval (GPT-4 as judge, ten models against text-davinci-003). All pairs of a prompt
are in one fold; each fold is scored by a reward model of the others, and by TF-IDF with logistic
regression (Bradley-Terry) of the same pairs. The other baseline prefers the longer answer.

`--judge` trains one model on AlpacaEval, without prompts that the tests have, and compares it with
the judgements of people in LLMBar, PandaLM, MT-Bench and FairEval; LLMBar's adversarial sets have
worse answers that look better, often because they are longer. Each run is a line of
OUT/results.jsonl, and is not repeated.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from idiolect.alignment.preference.preferences import Preference, prompt_text, read_preferences
from idiolect.alignment.reward.reward_evaluation import (
    TfidfReward,
    evaluate_margins,
    prompt_folds,
)
from idiolect.alignment.reward.reward_model import RewardModel
from idiolect.alignment.reward.reward_objective import reward_config, train_reward
from idiolect.models.language_model import LanguageModel
from idiolect.models.shallow import first_layers

FOLDS = 5
SETS = {
    "hh": "hh_harmless_base_test.jsonl.gz",
    "autoj": "autoj_testdata_pairwise.jsonl.gz",
    "alpaca": "alpaca_eval/*.json.gz",
}
JUDGED = {
    "LLMBar natural": "llmbar_Natural.json.gz",
    "LLMBar GPTInst": "llmbar_GPTInst.json.gz",
    "LLMBar GPTOut": "llmbar_GPTOut.json.gz",
    "LLMBar manual": "llmbar_Manual.json.gz",
    "MT-Bench": "llmbar_processed_MT-Bench.json.gz",
    "FairEval": "llmbar_processed_FairEval.json.gz",
    "PandaLM": "pandalm/testset-v1.json.gz",
}


def read_set(data: Path, name: str) -> list[Preference]:
    """Return the pairs of a set that is trained on."""
    folder = data / "preferences"
    if name != "autoj":
        files = sorted(folder.glob(SETS[name]))
        return [pair for file in files for pair in read_preferences(file, max_unreadable=0.1)]
    lines = gzip.decompress((folder / SETS[name]).read_bytes()).decode().splitlines()
    return [
        judged(one["prompt"], one["response 1"], one["response 2"], one["label"])
        for one in map(json.loads, lines)
        if one["label"] in (0, 1)
    ]


def judged(prompt: str, first: str, second: str, better: int) -> Preference:
    """Return a pair; `better` is 0 for the first answer, 1 for the second."""
    return Preference(prompt, *((second, first) if better else (first, second)))


def read_judged(data: Path, name: str) -> list[Preference]:
    """Return pairs that people have judged; of three of PandaLM's people, two have to agree."""
    path = data / "preferences" / JUDGED[name]
    pairs = []
    for one in json.loads(gzip.decompress(path.read_bytes())):
        if "label" in one:
            better = one["label"] - 1
            pairs.append(judged(one["input"], one["output_1"], one["output_2"], better))
            continue
        votes = Counter(one[f"annotator{n}"] for n in (1, 2, 3))
        better, count = votes.most_common(1)[0]
        sides = one["response1"], one["response2"]
        if count > 1 and better in (1, 2) and all(isinstance(side, str) for side in sides):
            prompt = "\n\n".join(filter(None, (one["instruction"], one["input"])))
            pairs.append(judged(prompt, *sides, better - 1))
    return pairs


def train(pairs: list[Preference], base: str, seed: int, out: Path, given: Any) -> RewardModel:
    """Train a reward model."""
    name, _, layers = base.partition(":")
    model = LanguageModel.load(name)
    if layers:
        model = first_layers(model, int(layers))
    made = train_reward(
        RewardModel.of(model, max_length=given.max_length, seed=seed),
        pairs,
        output_dir=out / "run",
        epochs=given.epochs,
        config=reward_config(learning_rate=given.lr, seed=seed, precision="auto", save_steps=10**6),
    )
    shutil.rmtree(out / "run")
    return made


def scores(pairs: list[Preference], margins: Any) -> dict[str, float]:
    """Return agreement and its interval, and the correlation with length."""
    found = evaluate_margins(pairs, margins)
    return {
        "agreement": found.agreement,
        "low": found.low,
        "high": found.high,
        "length": found.length_correlation,
        "longer": found.longer_wins,
    }


def validate(name: str, given: Any) -> None:
    """Cross-validate a base on a set."""
    key = {"set": name, "base": given.base, "limit": given.limit, "seed": given.seed}
    key |= {"lr": given.lr, "epochs": given.epochs, "max_length": given.max_length}
    if any(key.items() <= one.items() for one in results(given.out)):
        return
    every = read_set(given.data, name)
    pairs = random.Random(0).sample(every, min(given.limit or len(every), len(every)))
    folds, start = prompt_folds(pairs, FOLDS), time.perf_counter()
    ours, words = np.zeros(len(pairs)), np.zeros(len(pairs))
    for fold in range(FOLDS):
        own = np.flatnonzero(folds == fold)
        others = [pairs[i] for i in np.flatnonzero(folds != fold)]
        held = [pairs[i] for i in own]
        ours[own] = train(others, given.base, given.seed, given.out, given).margins(held)
        words[own] = TfidfReward(others).margins(held)
        print(f"{name}, fold {fold}: {scores(held, ours[own])['agreement']:.3f}", flush=True)
    row = {"pairs": len(pairs), "seconds": round(time.perf_counter() - start)}
    write(given.out, key | row | {"ours": scores(pairs, ours), "words": scores(pairs, words)})


def judge(given: Any) -> None:
    """Train on AlpacaEval, and compare with the judgements of people."""
    tests = {name: read_judged(given.data, name) for name in JUDGED}
    known = {prompt_text(pair.prompt) for pairs in tests.values() for pair in pairs}
    every = [p for p in read_set(given.data, "alpaca") if prompt_text(p.prompt) not in known]
    pairs = random.Random(0).sample(every, min(given.limit or len(every), len(every)))
    model, words = train(pairs, given.base, given.seed, given.out, given), TfidfReward(pairs)
    for name, test in tests.items():
        key = {"set": name, "base": given.base, "limit": given.limit, "seed": given.seed}
        found = {
            "ours": scores(test, model.margins(test)),
            "words": scores(test, words.margins(test)),
        }
        write(given.out, key | {"pairs": len(test), "trained": len(pairs)} | found)


def results(out: Path) -> list[dict[str, Any]]:
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(out: Path, row: dict[str, Any]) -> None:
    with (out / "results.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def table(out: Path) -> None:
    """Print a Markdown row for each run."""
    print("| set | base | pairs | reward model | 95 % | TF-IDF | longer answer | length ρ |")
    print("|---|---|--:|--:|---|--:|--:|--:|")
    for row in results(out):
        ours, words = row["ours"], row["words"]
        print(
            f"| {row['set']} | {row['base']} | {row['pairs']:,} | {100 * ours['agreement']:.1f} "
            f"| {100 * ours['low']:.1f} to {100 * ours['high']:.1f} "
            f"| {100 * words['agreement']:.1f} | {100 * ours['longer']:.1f} "
            f"| {ours['length']:+.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--base", default="minilm", help="NAME, or NAME:LAYERS for its first ones.")
    parser.add_argument("--limit", type=int, help="Most pairs of a set, drawn at random.")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.sets) - set(SETS):
        parser.error(f"unknown set {unknown.pop()}: one of {', '.join(SETS)}")
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        validate(name, given)
    if given.judge:
        judge(given)
    if given.table:
        table(given.out)


if __name__ == "__main__":
    main()
