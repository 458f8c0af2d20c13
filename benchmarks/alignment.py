"""Speed and memory of alignment beside trl, on texts of mixed lengths.

    python benchmarks/alignment.py MODEL PREFERENCES [STEPS [sft] [dpo] [ppo] [ppo-critic]]

`sft` and `dpo`: seconds a step and peak memory of this package and of trl, each side in a process
of its own, in alternation, with the same model, texts, batch, order of magnitude of work and one
thread; DPO's reference is computed before on both sides and not timed. `ppo`: tokens a second of
rollout and four updates, beside a loop over `generate` of transformers with the same sizes, whose
values are read from the policy's hidden states, as here. `ppo-critic`: the same, beside such a loop
with the parts of the PPOTrainer of earlier trl: the critic is a second network, trained as
well, and the log-probabilities of a rollout are those of its generation.
MODEL must be a folder that both read, such as assets/idiolect-base; PREFERENCES a file in any form
that `idiolect align dpo` reads, such as llamafactory_dpo_en_demo.json.gz. STEPS is at least 3.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

BATCH, LENGTH, PROMPTS, NEW, ROUNDS = 8, 512, 16, 32, 2


def write_texts(source: str) -> str:
    """Write preferences as plain texts, the same for both sides; return the file."""
    from idiolect.alignment.preference.preferences import prompt_text, read_preferences

    path = Path(tempfile.mkdtemp()) / "pairs.jsonl"
    found = [
        {"prompt": prompt_text(one.prompt), "chosen": one.chosen, "rejected": one.rejected}
        for one in read_preferences(Path(source))
    ]
    path.write_text("".join(f"{json.dumps(one)}\n" for one in found))
    return str(path)


def rows(path: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def our_tuning(kind: str, model: str, data: str, steps: int) -> list[float]:
    from idiolect.alignment.chat.conversations import Conversation
    from idiolect.alignment.chat.fine_tune import alignment_config, fine_tune
    from idiolect.alignment.preference.preferences import read_preferences
    from idiolect.alignment.preference.train_preferences import preference_config, train_preferences
    from idiolect.models.language_model import LanguageModel

    loaded, out = LanguageModel.load(model), tempfile.mkdtemp()
    sizes = {"batch_size": BATCH, "max_length": LENGTH, "save_steps": 10_000}
    if kind == "dpo":
        train_preferences(
            loaded, read_preferences(Path(data)), output_dir=out, steps=steps, chat=False,
            config=preference_config(**sizes),
        )  # fmt: skip
    else:
        texts = [Conversation((), row["prompt"], row["chosen"]) for row in rows(data)]
        fine_tune(loaded, texts, output_dir=out, steps=steps, config=alignment_config(**sizes))
    metrics = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return [one["tokens"] / one["tokens_per_second"] for one in metrics[1:]]


def their_tuning(kind: str, model: str, data: str, steps: int) -> list[float]:
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    import torch

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    usual = {
        "output_dir": tempfile.mkdtemp(), "max_steps": steps, "per_device_train_batch_size": BATCH,
        "max_length": LENGTH, "use_cpu": True, "bf16": False, "report_to": [],
        "save_strategy": "no", "gradient_checkpointing": False, "logging_steps": 10_000,
        "disable_tqdm": True,
    }  # fmt: skip
    clock, table = Clock(), rows(data)
    if kind == "dpo":
        args: Any = trl.DPOConfig(**usual, precompute_ref_log_probs=True)
        trainer: Any = trl.DPOTrainer
    else:
        args, trainer = trl.SFTConfig(**usual), trl.SFTTrainer
        table = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in table]
    trainer(
        model=loaded, args=args, train_dataset=Dataset.from_list(table),
        processing_class=tokenizer, callbacks=[clock],
    ).train()  # fmt: skip
    return clock.seconds[1:]


def our_ppo(model: str, data: str, rollouts: int) -> list[float]:
    from idiolect.alignment.reinforcement.policy_settings import PolicySettings
    from idiolect.alignment.reinforcement.prompts import PolicyPrompt
    from idiolect.alignment.reinforcement.rewards import FunctionReward
    from idiolect.alignment.reinforcement.train_policy import policy_config, train_policy
    from idiolect.models.language_model import LanguageModel

    prompts = [PolicyPrompt(row["prompt"][:120]) for row in rows(data)]
    settings = PolicySettings(algorithm="ppo", max_new_tokens=NEW, updates=4)
    out, stamps = tempfile.mkdtemp(), list[float]()

    def reward(texts: object, completions: list[str], records: object) -> list[float]:
        stamps.append(time.perf_counter())
        return [float(len(text) % 7) for text in completions]

    train_policy(
        LanguageModel.load(model), prompts, FunctionReward(reward), output_dir=out, chat=False,
        settings=settings, steps=4 * rollouts,
        config=policy_config(batch_size=PROMPTS, save_steps=10_000),
    )  # fmt: skip
    # From one reward to the next lie four updates and the next rollout.
    return [after - before for before, after in pairwise(stamps[1:])]


def their_ppo(model: str, data: str, rollouts: int, *, own_critic: bool) -> list[float]:
    import torch
    import torch.nn.functional as F
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32) for _ in range(2)
    )
    value = torch.nn.Linear(policy.config.hidden_size, 1)
    trained = [*policy.parameters(), *value.parameters()]
    if own_critic:
        critic = AutoModel.from_pretrained(model, dtype=torch.float32)
        trained += critic.parameters()
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    texts = [row["prompt"][:120] for row in rows(data)]
    seconds = []

    def gathered(logits: Any, ids: Any) -> Any:
        return logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]

    def log_probs(network: Any, ids: Any, mask: Any, start: int) -> tuple[Any, Any]:
        output = network(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        own = gathered(output.logits[:, start - 1 : -1], ids[:, start:])
        return own, output.hidden_states[-1]

    def scores(ids: Any, mask: Any, start: int) -> tuple[Any, Any]:
        logs, hidden = log_probs(policy, ids, mask, start)
        if own_critic:
            hidden = critic(input_ids=ids, attention_mask=mask).last_hidden_state
        return logs, value(hidden[:, start - 1 : -1])[..., 0]

    def write(inputs: Any, start: int) -> tuple[Any, ...]:
        """Generate; return tokens, mask, log-probabilities and values."""
        sizes = {"do_sample": True, "top_k": 0, "max_new_tokens": NEW}
        if not own_critic:
            ids = policy.generate(**inputs, **sizes)
            mask = F.pad(inputs["attention_mask"], (0, ids.shape[1] - start), value=1)
            return ids, mask, *scores(ids, mask, start)
        found = policy.generate(**inputs, **sizes, return_dict_in_generate=True, output_logits=True)
        ids = found.sequences
        mask = F.pad(inputs["attention_mask"], (0, ids.shape[1] - start), value=1)
        hidden = critic(input_ids=ids, attention_mask=mask).last_hidden_state
        old = gathered(torch.stack(found.logits, 1), ids[:, start:])
        return ids, mask, old, value(hidden[:, start - 1 : -1])[..., 0]

    for number in range(rollouts):
        began = time.perf_counter()
        own = [texts[(number * PROMPTS + i) % len(texts)] for i in range(PROMPTS)]
        inputs = tokenizer(own, return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        start = inputs["input_ids"].shape[1]
        with torch.no_grad():
            ids, mask, old, values = write(inputs, start)
            base, _ = log_probs(reference, ids, mask, start)
        rewards = -0.15 * (old - base)
        advantages = (rewards - values) / (rewards - values).std().clamp(min=1e-8)
        for _ in range(4):
            logs, now = scores(ids, mask, start)
            ratio = (logs - old).exp()
            loss = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
            loss = loss + 0.1 * (now - rewards).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def main() -> None:
    if sys.argv[1] in ("ours", "theirs"):
        side, kind, model, data, steps = sys.argv[1:6]
        import torch

        torch.set_num_threads(1)
        if kind.startswith("ppo"):
            if side == "ours":
                seconds = our_ppo(model, data, int(steps))
            else:
                critic = kind == "ppo-critic"
                seconds = their_ppo(model, data, int(steps), own_critic=critic)
        else:
            tune = our_tuning if side == "ours" else their_tuning
            seconds = tune(kind, model, data, int(steps))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": statistics.median(seconds), "peak": peak}))
        return
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    model, source = sys.argv[1:3]
    steps = sys.argv[3] if len(sys.argv) > 3 else "8"
    data = write_texts(source)
    print(f"load {os.getloadavg()[0]:.1f}; medians of {ROUNDS} runs of {steps} steps", flush=True)
    for kind in sys.argv[4:] or ["sft", "dpo", "ppo", "ppo-critic"]:
        found: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
        for _ in range(ROUNDS):
            for side, runs in found.items():
                command = [sys.executable, __file__, side, kind, model, data, steps]
                run = subprocess.run(command, capture_output=True, text=True)
                if run.returncode:
                    sys.exit(f"{side} {kind}: {run.stderr[-2000:]}")
                runs.append(json.loads(run.stdout.splitlines()[-1]))
        ours, theirs = (
            {key: statistics.median(run[key] for run in runs) for key in ("seconds", "peak")}
            for runs in found.values()
        )
        what = "a step" if not kind.startswith("ppo") else "a rollout with four updates"
        rate = PROMPTS * NEW / ours["seconds"]
        told = f" ({rate:,.0f} new tokens/s)" if kind.startswith("ppo") else ""
        print(
            f"{kind}: {ours['seconds']:.2f} s {what}{told}, the other {theirs['seconds']:.2f} s: "
            f"{theirs['seconds'] / ours['seconds']:.2f} times as fast; peak memory "
            f"{ours['peak']:,.0f} MB, the other {theirs['peak']:,.0f} MB: "
            f"{ours['peak'] / theirs['peak']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
