"""Sentiment control: continue the first words of film reviews so that they are positive.

    policy   idiolect-base, or another model, fine-tuned on reviews (SFT)
    reward   log-odds of "positive" by a classifier trained on SST-2
    judge    the same by another classifier, trained on the reviews that are not in SST-2

DPO, PPO, RLOO and GRPO are compared with SFT and with the best of n samples of SFT, whose
divergence is at most log n − (n − 1) / n nats, at equal divergence from SFT. Every stage is kept in
the folder, so the script can be stopped and run again:

    python benchmarks/sentiment_control.py DATA runs/sentiment --seeds 3 --minutes 9
    python benchmarks/sentiment_control.py DATA runs/sentiment --plot docs/sentiment.png
    python benchmarks/sentiment_control.py DATA runs/smollm2 --base smollm2 --rank 4 --rate 3e-4
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idiolect.alignment.chat.conversations import Conversation
from idiolect.alignment.chat.fine_tune import alignment_config, fine_tune
from idiolect.alignment.preference.completion_batch import EncodedCompletion
from idiolect.alignment.preference.preference_objective import PreferenceSettings
from idiolect.alignment.preference.preferences import Preference
from idiolect.alignment.preference.train_preferences import preference_config, train_preferences
from idiolect.alignment.reinforcement.policy_settings import PolicySettings
from idiolect.alignment.reinforcement.prompts import PolicyPrompt
from idiolect.alignment.reinforcement.rewards import ClassifierReward
from idiolect.alignment.reinforcement.rollouts import PolicyBatch, score_tokens
from idiolect.alignment.reinforcement.train_policy import policy_config, train_policy
from idiolect.encoding.encoder import Encoder
from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import LoraConfig
from idiolect.tasks.classify.classification_metrics import score_classes
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.task_model import task_config

WORDS, NEW_TOKENS, LAYERS = 4, 12, 3
BEST_OF = (2, 4, 8)
SAMPLES_OF_PAIR = 4
BETA = {"ppo": 1.0, "rloo": 1.0, "grpo": 0.6, "dpo": 1.0}
METHODS = tuple(BETA)
ADAPTED = ("query", "key", "value", "output", "gate", "up", "down")


def read_reviews(path: Path) -> list[tuple[str, str]]:
    with gzip.open(path, "rt", encoding="latin-1", newline="\n") as file:
        rows = [(line[:1], " ".join(line[2:].split())) for line in file]
    return [(label, text) for label, text in rows if label in ("0", "1") and text]


def ends(text: str) -> set[str]:
    """The first and last letters of a review, which SST-2 may have cut or spelt otherwise."""
    letters = re.sub("[^a-z]", "", text.lower())
    return {letters[:20], letters[-20:]}


def classifier(folder: Path, train: list[tuple[str, str]], adaptation: str) -> TextClassifier:
    if (folder / "model" / "classifier.json").exists():
        return TextClassifier.load(folder / "model")
    encoder = Encoder.load("minilm").with_changes(layers=LAYERS)
    model = TextClassifier(encoder, ["0", "1"])
    config = task_config(adaptation)
    epochs = 1 if adaptation == "full" else 4
    examples = [LabelledText(text, label) for label, text in train]
    return model.train(
        examples, output_dir=folder, adaptation=adaptation, epochs=epochs, config=config
    )


def accuracy(model: TextClassifier, test: list[tuple[str, str]]) -> float:
    examples = [LabelledText(text, label) for label, text in test]
    return score_classes(model.probabilities(examples), model.numbers(examples)).accuracy


def start(text: str) -> str:
    return " ".join(text.split()[:WORDS])


def measure(
    model: LanguageModel,
    base: LanguageModel,
    prompts: list[str],
    scorers: dict[str, Any],
    seed: int,
) -> dict[str, float]:
    """Sample once for each prompt; return rewards and the divergence from the base."""
    written = Generator(model).generate(
        prompts, do_sample=True, max_new_tokens=NEW_TOKENS, seed=seed, batch_size=64
    )
    given = [PolicyPrompt(prompt) for prompt in prompts]
    found = {
        name: float(np.mean(scorer(given, [w.text for w in written])))
        for name, scorer in scorers.items()
    }
    rows = [
        EncodedCompletion(model.tokenizer.encode(prompt), one.ids)
        for prompt, one in zip(prompts, written, strict=True)
    ]
    batch = PolicyBatch.of(rows)
    with torch.no_grad():
        own = score_tokens(model.network, batch, 1.0).log_probs
        other = score_tokens(base.network, batch, 1.0).log_probs
    found["kl"] = float((own - other).sum()) / len(prompts)
    return found


def pairs_of(model: LanguageModel, prompts: list[str], reward: Any) -> list[Preference]:
    """Return the best and the worst of four samples of each prompt."""
    written = Generator(model).generate(
        prompts,
        do_sample=True,
        max_new_tokens=NEW_TOKENS,
        num_return_sequences=SAMPLES_OF_PAIR,
        seed=11,
        batch_size=64,
    )
    texts = np.array([one.text for one in written]).reshape(-1, SAMPLES_OF_PAIR)
    given = [PolicyPrompt(prompt) for prompt in prompts for _ in range(SAMPLES_OF_PAIR)]
    scores = np.array(reward(given, texts.ravel().tolist())).reshape(-1, SAMPLES_OF_PAIR)
    return [
        Preference(prompt, str(row[own.argmax()]), str(row[own.argmin()]))
        for prompt, row, own in zip(prompts, texts, scores, strict=True)
        if row[own.argmax()].strip()
        and row[own.argmin()].strip()
        and row[own.argmax()] != row[own.argmin()]
    ]


def adapters(rank: int) -> dict[str, Any]:
    """Return the arguments that train LoRA adapters of a rank; of rank 0, all weights train."""
    if not rank:
        return {}
    return {"train": "rows+lora", "lora": LoraConfig(r=rank, target_modules=ADAPTED)}


def train_one(
    method: str,
    seed: int,
    folder: Path,
    sft: Path,
    prompts: list[str],
    scorers: dict[str, Any],
    args: Any,
) -> None:
    model = LanguageModel.load(sft)
    config = {
        "learning_rate": args.rate,
        "precision": args.precision,
        "seed": seed,
        "warmup_ratio": 0.1,
        **({"schedule": args.schedule} if args.schedule else {}),
    }
    if method == "dpo":
        train_preferences(
            model,
            pairs_of(model, prompts[: 16 * args.steps], scorers["reward"]),
            output_dir=folder,
            settings=PreferenceSettings(loss="dpo", beta=args.beta or BETA["dpo"]),
            steps=args.steps,
            config=preference_config(**config),
            chat=False,
            **adapters(args.rank),
        )
        return
    settings = PolicySettings(
        algorithm=method,
        num_generations=1 if method == "ppo" else 4,
        max_new_tokens=NEW_TOKENS,
        beta=args.beta or BETA[method],
        updates=2 if method == "ppo" else 1,
    )
    train_policy(
        model,
        [PolicyPrompt(prompt) for prompt in prompts],
        scorers["reward"],
        judge=scorers["judge"],
        output_dir=folder,
        settings=settings,
        steps=args.steps * settings.steps_per_rollout,
        reward_name="sst-2",
        chat=False,
        config=policy_config(batch_size=args.batch_size, max_length=128, **config),
        **adapters(args.rank),
    )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", default="assets/idiolect-base")
    parser.add_argument("--rank", type=int, default=0, help="Of LoRA; 0 trains all weights.")
    parser.add_argument("--schedule", help="Default: that of each command.")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--reviews", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--beta", type=float, help="Instead of that of each method.")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


def fine_tune_on_reviews(texts: list[str], folder: Path, args: Any) -> None:
    conversations = [
        Conversation((), start(text), " " + " ".join(text.split()[WORDS:]))
        for text in texts
        if len(text.split()) > WORDS + 2
    ]
    fine_tune(
        LanguageModel.load(args.base),
        conversations,
        output_dir=folder,
        epochs=1,
        loss_on="all",
        config=alignment_config(
            learning_rate=3e-4 if args.rank else 5e-4,
            batch_size=32,
            max_length=64,
            precision=args.precision,
        ),
        **adapters(2 * args.rank),
    )


def without_training(
    base: LanguageModel, prompts: list[str], scorers: dict[str, Any], seeds: int
) -> dict[str, Any]:
    """Return what SFT and the best of its samples reach, for each seed."""
    found: dict[str, Any] = {
        "sft": [measure(base, base, prompts, scorers, seed) for seed in range(seeds)]
    }
    chosen = [best_of(base, prompts, scorers, seed) for seed in range(seeds)]
    return found | {f"best_of_{count}": [one[count] for one in chosen] for count in BEST_OF}


def main() -> None:
    args = options()
    began = time.monotonic()
    folder = args.data / "sentence-classification"
    reviews = read_reviews(folder / "rt-polarity.all.gz")
    sst = {
        part: read_reviews(folder / f"stsa.binary.{part}.gz") for part in ("train", "dev", "test")
    }
    known = {end for part in sst.values() for _, text in part for end in ends(text)}
    others = [(label, text) for label, text in reviews if not ends(text) & known]
    print(f"the judge learns from {len(others):,} reviews that are not in SST-2", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    reward = classifier(args.out / "reward", sst["train"][:5000], "full")
    judge = classifier(args.out / "judge", others, "frozen")
    scorers = {"reward": ClassifierReward(reward, "1"), "judge": ClassifierReward(judge, "1")}
    order = np.random.default_rng(0).permutation(len(reviews))
    texts = [reviews[i][1] for i in order]
    learnt, rest = texts[: args.reviews], texts[args.reviews :]
    sft = args.out / "sft" / "model"
    if not sft.exists():
        fine_tune_on_reviews(learnt, sft.parent, args)
    prompts = [start(text) for text in rest if len(text.split()) > WORDS + 2]
    train_prompts, test_prompts = prompts[:2000], prompts[2000:2200]
    path = args.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    base = LanguageModel.load(sft)
    if not results:
        for name, model in (("reward", reward), ("judge", judge)):
            results.setdefault("classifiers", {})[name] = accuracy(model, sst["test"][:600])
        results |= without_training(base, test_prompts, scorers, args.seeds)
        path.write_text(json.dumps(results, indent=1))
    for seed, method in itertools.product(range(args.seeds), args.methods):
        name = f"{method}-{seed}"
        if name in results:
            continue
        if time.monotonic() - began > 60 * args.minutes:
            return
        train_one(method, seed, args.out / name, sft, train_prompts, scorers, args)
        tuned = LanguageModel.load(args.out / name / "model")
        results[name] = measure(tuned, base, test_prompts, scorers, seed)
        path.write_text(json.dumps(results, indent=1))
        print(name, results[name], flush=True)
    show(results)
    if args.plot:
        plot(args.out, results, args)


def best_of(
    model: LanguageModel, prompts: list[str], scorers: dict[str, Any], seed: int
) -> dict[int, dict[str, float]]:
    """Return reward and judge of the best of 2, 4 and 8, from the same samples."""
    most = BEST_OF[-1]
    written = Generator(model).generate(
        prompts,
        do_sample=True,
        max_new_tokens=NEW_TOKENS,
        num_return_sequences=most,
        seed=seed,
        batch_size=64,
    )
    given = [PolicyPrompt(prompt) for prompt in prompts for _ in range(most)]
    texts = [one.text for one in written]
    rewards, judged = (np.array(scorers[name](given, texts)) for name in ("reward", "judge"))
    found = {}
    for count in BEST_OF:
        groups = rewards.reshape(-1, count)
        best = groups.argmax(1)
        found[count] = {
            "reward": float(groups.max(1).mean()),
            "judge": float(judged.reshape(-1, count)[np.arange(len(best)), best].mean()),
            "kl": math.log(count) - (count - 1) / count,
        }
    return found


def mean(found: list[dict[str, float]], key: str) -> float:
    return float(np.mean([one[key] for one in found]))


def at_equal_kl(results: dict[str, Any], key: str, kl: float) -> float:
    """Return what the best of n samples has at a divergence; between them, by its square root."""
    curve = [results["sft"], *(results[f"best_of_{count}"] for count in BEST_OF)]
    roots = [math.sqrt(mean(found, "kl")) for found in curve]
    return float(np.interp(math.sqrt(max(kl, 0)), roots, [mean(found, key) for found in curve]))


def show(results: dict[str, Any]) -> None:
    print(f"accuracy on SST-2 test: {results['classifiers']}")
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for name, found in results.items():
        if name == "sft" or name.startswith("best_of"):
            rows[name] = found
        elif name != "classifiers":
            rows[name.rpartition("-")[0]].append(found)
    print(f"{'':10} {'reward':>16} {'judge':>16} {'kl':>16}  seeds; best of n at equal kl")
    for name, found in rows.items():
        cells = []
        for key in ("reward", "judge", "kl"):
            values = [one[key] for one in found]
            cells.append(f"{np.mean(values):8.3f} ± {np.std(values):.3f}")
        equal = [at_equal_kl(results, key, mean(found, "kl")) for key in ("reward", "judge")]
        line = f"{name:10} " + " ".join(f"{cell:>16}" for cell in cells) + f"  {len(found)}"
        print(line + f"      {equal[0]:.3f} {equal[1]:.3f}")


def plot(folder: Path, results: dict[str, Any], args: Any) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    colors = dict(zip(METHODS, ("#2f6db5", "#c8562a", "#3a8a4d", "#8a5bb0"), strict=True))
    for place, (key, title) in enumerate((("reward", "reward"), ("judge", "held-out judge"))):
        axis = axes[place]
        for method in METHODS:
            for seed in range(args.seeds):
                if f"{method}-{seed}" not in results:
                    continue
                if method != "dpo":
                    path = folder / f"{method}-{seed}" / "metrics.jsonl"
                    lines = [json.loads(line) for line in path.read_text().splitlines()]
                    kl, value = [one["kl"] for one in lines], [one[key] for one in lines]
                    width = 5
                    kl = np.convolve(kl, np.ones(width) / width, "valid")
                    value = np.convolve(value, np.ones(width) / width, "valid")
                    axis.plot(kl, value, color=colors[method], lw=0.8, alpha=0.7)
                one = results[f"{method}-{seed}"]
                axis.plot(
                    one["kl"], one[key], "o", color=colors[method],
                    label=method.upper() if seed == 0 else None,
                )  # fmt: skip
        roots = np.linspace(0, math.sqrt(mean(results[f"best_of_{BEST_OF[-1]}"], "kl")), 100)
        curve = [at_equal_kl(results, key, root**2) for root in roots]
        axis.plot(roots**2, curve, color="black", lw=1)
        for name in ("sft", *(f"best_of_{count}" for count in BEST_OF)):
            found = results[name]
            axis.plot(
                mean(found, "kl"), mean(found, key), "s" if name == "sft" else "*",
                color="black", ms=9, label={"sft": "SFT"}.get(name, name.replace("_", " ")),
            )  # fmt: skip
        axis.set(title=title, xlabel="divergence from SFT (nats a text)", ylabel="log-odds")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(args.plot, dpi=110)


if __name__ == "__main__":
    main()
