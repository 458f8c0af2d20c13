"""Reinforcement learning on a search: a language model adds words to a query, rewarded by nDCG.

    python benchmarks/query_rewriting.py DATA OUT [--model smollm2] [--steps 30] [--seeds 1]

The queries are SciFact's claims, the documents its 5,183 abstracts. The model reads a claim and
names words that an abstract about it would use; an index of ours searches for claim and words
together, by words only. The reward is nDCG@10 with the abstracts that the claim cites. Training
(RLOO with adapters) reads the training claims. The 300 others are searched for alone, with the
words of the model before training, and with those after it (greedy search); the differences have
95 % intervals by paired bootstrap. DATA is the folder of public data sets.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from idiolect.alignment.chat.chat_encoding import encode_prompt
from idiolect.alignment.reinforcement.policy_settings import PolicySettings
from idiolect.alignment.reinforcement.prompts import PolicyPrompt
from idiolect.alignment.reinforcement.rewards import SearchReward
from idiolect.alignment.reinforcement.train_policy import policy_config, train_policy
from idiolect.encoding.encoder import Encoder
from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import LoraConfig
from idiolect.ranking.evaluation.significance import compare
from idiolect.search.index import Index
from idiolect.search.items import Item
from scifact import SciFact, read_scifact

NEW_TOKENS = 16
INSTRUCTION = (
    "Name five technical words that a scientific abstract about this claim would use, separated by "
    "spaces, and nothing else.\nClaim: "
)


class ExpansionReward:
    """nDCG@10 of a search for the claim together with the completion."""

    def __init__(self, search: SearchReward) -> None:
        self.search = search

    def __call__(
        self, prompts: Sequence[PolicyPrompt], completions: Sequence[str]
    ) -> Sequence[float]:
        """Return the reward of each completion."""
        queries = [
            f"{one.record['claim']} {text}" for one, text in zip(prompts, completions, strict=True)
        ]
        return self.search(prompts, queries)


def open_index(folder: Path, data: SciFact) -> Index:
    """Return the index of the abstracts. The search reads words; the vectors are not used."""
    if (folder / "index").exists():
        return Index.open(folder / "index")
    Encoder(LanguageModel.load("idiolect-base"), layers=0).save(folder / "encoder")
    items = [Item(id, text) for id, text in data.documents.items()]
    return Index.build(folder / "index", str(folder / "encoder"), items)


def prompts_of(data: SciFact, claims: Mapping[str, str]) -> list[PolicyPrompt]:
    """Return the prompts of claims that cite an abstract."""
    found = []
    for id, claim in claims.items():
        relevant = [one for one in data.cited[id] if one in data.documents]
        if relevant:
            messages = ({"role": "user", "content": INSTRUCTION + claim},)
            found.append(PolicyPrompt(messages, {"claim": claim, "relevant": relevant}))
    return found


def expand(model: LanguageModel, prompts: Sequence[PolicyPrompt]) -> list[str]:
    """Return the words that a model adds to each claim."""
    ids = [encode_prompt(model.tokenizer, one.prompt) for one in prompts]
    found = Generator(model).generate(ids, max_new_tokens=NEW_TOKENS)
    return [one.text for one in found]


def measure(given: argparse.Namespace) -> None:
    """Train and print the table."""
    data = read_scifact(given.data)
    train, test = prompts_of(data, data.train), prompts_of(data, data.validation)
    with open_index(given.out, data) as index:
        reward = ExpansionReward(SearchReward.of_index(index))
        values = {"claim alone": reward(test, [""] * len(test))}
        words = {"before": expand(LanguageModel.load(given.model), test)}
        values["words of the model"] = reward(test, words["before"])
        for seed in range(given.seeds):
            began = time.perf_counter()
            tuned = train_policy(
                LanguageModel.load(given.model),
                train,
                reward,
                output_dir=given.out / f"run-{seed}",
                settings=PolicySettings(
                    algorithm="rloo", num_generations=8, max_new_tokens=NEW_TOKENS, beta=0.02
                ),
                steps=given.steps,
                reward_name="nDCG@10 of the claim with the completion",
                train="rows+lora",
                lora=LoraConfig(),
                config=policy_config(
                    batch_size=32, learning_rate=given.lr, seed=seed, precision="auto"
                ),
            )
            words[f"after, seed {seed}"] = expand(tuned, test)
            name = f"after {given.steps} steps, seed {seed}"
            values[name] = reward(test, words[f"after, seed {seed}"])
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    (given.out / "words.json").write_text(json.dumps(words, indent=1, ensure_ascii=False))
    table(values, len(test))


def table(values: Mapping[str, Sequence[float]], count: int) -> None:
    """Print the means, and the differences to the first system."""
    print(f"{count} claims\n| query | nDCG@10 | difference | 95 % | p |\n|---|--:|--:|---|--:|")
    named = [{str(i): one for i, one in enumerate(found)} for found in values.values()]
    for name, own in zip(values, named, strict=True):
        mean = sum(own.values()) / len(own)
        if own is named[0]:
            print(f"| {name} | {mean:.3f} | | | |")
            continue
        found = compare(named[0], own)
        interval = f"{found.low:+.3f} to {found.high:+.3f}"
        print(
            f"| {name} | {mean:.3f} | {found.difference:+.3f} | {interval} | {found.p_value:.4f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    measure(given)


if __name__ == "__main__":
    main()
