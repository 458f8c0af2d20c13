"""`train_policy`: train a language model with reinforcement learning, in one session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from idiolect.alignment.chat.chat_encoding import (
    encode_prompt,
    prepare_prompts,
    unusable_template,
)
from idiolect.alignment.preference.train_preferences import wrapped
from idiolect.alignment.reinforcement.policy_objective import (
    PolicyObjective,
    WrittenText,
    frozen_copy,
)
from idiolect.alignment.reinforcement.policy_settings import PolicySettings
from idiolect.alignment.reinforcement.prompts import PolicyPrompt, RolloutSource
from idiolect.alignment.reinforcement.rewards import Reward
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.model_defaults import find_context_length, find_ends
from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedEmbedding
from idiolect.nn.lora import LoraConfig
from idiolect.text.arguments import check_whole, load_if_named
from idiolect.text.files import write_atomic
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.optim import Train
from idiolect.training.progress import notice
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["policy_config", "train_policy"]

_KEPT = 4
"""Completions of each rollout that are written to `samples.jsonl`."""


def policy_config(**values: Any) -> TrainingConfig:
    """Return the defaults: 16 completions a step, a constant learning rate of 1e-6.

    Args:
        values: Fields of `TrainingConfig` to override.
    """
    usual = {
        "learning_rate": 1e-6,
        "learning_rates": {"attached": 1e-3},
        "schedule": "constant",
        "weight_decay": 0.0,
        "precision": "fp32",
        "max_length": 1024,
    }
    return TrainingConfig.from_dict(usual | values)


def train_policy(
    model: LanguageModel,
    prompts: Sequence[PolicyPrompt],
    reward: Reward,
    *,
    output_dir: str | Path,
    settings: PolicySettings | None = None,
    epochs: int = 1,
    steps: int | None = None,
    judge: Reward | None = None,
    reward_name: str = "",
    chat: bool | None = None,
    train: Train = "all",
    lora: LoraConfig | None = None,
    config: TrainingConfig | None = None,
    tensorboard: bool = False,
) -> LanguageModel:
    """Tune a causal language model by reinforcement learning. Run it again to resume.

    Original embedding rows stay unchanged. The reference model is the given model: with LoRA it is
    the model without its adapters, so no second model is in memory; otherwise it is a copy.

    Args:
        model: The policy, whose network is changed in place; or a name or path to load.
        prompts: The prompts.
        reward: Scores completions.
        output_dir: The run's folder; see `RunFolder`. The finished model is in `output_dir/model`,
            some completions of each rollout in `output_dir/samples.jsonl`.
        settings: The algorithm and its sizes; by default GRPO.
        epochs: Passes over the prompts.
        steps: Steps of the whole run, instead of `epochs`.
        judge: A reward that is only reported; see `PolicyObjective`.
        reward_name: Name of the reward in the run's record, so that a run resumes with the same
            reward.
        chat: As in `train_preferences`.
        train: Which parameters train; see `Train`.
        lora: Rank and target modules of the adapters, with `train="rows+lora"`.
        config: Training settings, by default `policy_config()`. `batch_size` counts completions. A
            prompt that leaves no room for `max_new_tokens` is left out; they are counted.
        tensorboard: Write TensorBoard events to `output_dir/events`.

    Returns:
        The model, tuned, in evaluation mode.

    Raises:
        ConfigError: The model is not causal, a setting is out of its range, or the batch is not a
            multiple of the completions of a prompt.
        InputError: The model has no end token, there are too few prompts, or the reward misses
            something in a record.
        CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
        TrainingError: The loss or a reward is not finite.
    """
    model = load_if_named(model, LanguageModel, "model")
    settings = settings or PolicySettings()
    config = policy_config() if config is None else TrainingConfig.of(config)
    if steps is None and check_whole(epochs, "epochs") < 1:
        raise ConfigError(f"epochs is {epochs}", hint="choose at least 1")
    if not find_ends(model):
        raise InputError(
            "the model has no end token, so its completions never end",
            hint="name one in its generation config (eos_token_id)",
        )
    prompts = [wrapped(one, model.tokenizer, chat) for one in prompts]
    prepare_prompts(model.tokenizer, (one.prompt for one in prompts))
    prompts, ids = _encode(model, prompts, settings, config)
    for scorer in (reward, judge):
        # Not in the rollout that happens to contain the record: the run could never continue.
        if (check := getattr(scorer, "check", None)) is not None:
            check(prompts)
    source = _source(len(prompts), settings, config)
    session = TrainingSession(
        model,
        out=output_dir,
        config=config,
        steps=epochs * source.rollouts * source.steps if steps is None else steps,
        train=train,
        lora=lora,
        modules=_value_head(model, settings),
        tensorboard=tensorboard,
    )
    records = [dict(one.record) for one in prompts]
    session.begin(
        {
            "model": fingerprint(model.network.state_dict()),
            "tokenizer": model.tokenizer.fingerprint,
            "objective": asdict(settings),
            "reward": reward_name,
            "prompts": hashlib.blake2b(repr((ids, records)).encode(), digest_size=16).hexdigest(),
        }
    )
    adapted = train == "rows+lora" and not isinstance(model.network.tokens, ExtendedEmbedding)
    value = session.modules.get("value")
    objective = PolicyObjective(
        model,
        prompts,
        ids,
        reward,
        settings,
        value=value if isinstance(value, nn.Linear) else None,
        reference=None if adapted else frozen_copy(model.network),
        judge=judge,
        seed=config.seed,
        precision=session.precision,
        on_rollout=_sample_writer(session) if session.workers.is_first else None,
    )
    session.train(objective, source)
    session.publish(model.save)
    return model


def _source(count: int, settings: PolicySettings, config: TrainingConfig) -> RolloutSource:
    completions = config.batch_size * settings.mini_batches
    if completions % settings.group:
        raise ConfigError(
            f"{completions} completions a rollout are not divisible by {settings.group} of each "
            "prompt",
            hint="choose a batch_size that is a multiple of num_generations",
        )
    rows = completions // settings.group
    if count < rows:
        raise InputError(
            f"{count:,} prompts, and a rollout has {rows}",
            hint="give more prompts, a smaller batch_size, or more num_generations",
        )
    return RolloutSource(count, rows=rows, steps=settings.steps_per_rollout, seed=config.seed)


def _value_head(model: LanguageModel, settings: PolicySettings) -> dict[str, nn.Module]:
    """Return PPO's value head, initialised to zero."""
    if settings.algorithm != "ppo":
        return {}
    head = nn.Linear(model.network.config.hidden_size, 1, device=model.network.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return {"value": head}


def _encode(
    model: LanguageModel,
    prompts: Sequence[PolicyPrompt],
    settings: PolicySettings,
    config: TrainingConfig,
) -> tuple[list[PolicyPrompt], list[list[int]]]:
    """Return the prompts that leave room for a completion, and their ids."""
    context = find_context_length(model)
    longest = config.max_length if context is None else min(config.max_length, context)
    room = longest - settings.max_new_tokens
    failed = dict[int, CheckpointError]()
    found, ids, left_out = [], [], list[int]()
    for number, one in enumerate(prompts, 1):
        try:
            own = encode_prompt(model.tokenizer, one.prompt)
        except CheckpointError as error:
            failed[number] = error
            continue
        if not own or len(own) > room:
            left_out.append(number)
            continue
        found.append(one)
        ids.append(own)
    if failed:
        raise unusable_template(failed, len(prompts), "prompts")
    told = f"leave no room for {settings.max_new_tokens} new tokens in {longest}"
    if not found:
        raise InputError(
            f"all {len(prompts):,} prompts {told}" if prompts else "there are no prompts",
            hint="shorten them, or lower max_new_tokens",
        )
    if left_out:
        first = ", ".join(map(str, left_out[:3]))
        notice(
            f"{len(left_out):,} of {len(prompts):,} prompts {told} and are left out "
            f"(the first: {first})"
        )
    return found, ids


def _sample_writer(session: TrainingSession) -> Callable[[Sequence[WrittenText]], None]:
    """Return a function that keeps the first completions of each rollout in `samples.jsonl`."""
    path = session.folder.path / "samples.jsonl"

    def write(texts: Sequence[WrittenText]) -> None:
        kept = []
        if path.exists():
            # A resumed run writes its last rollouts again.
            # Not `splitlines`: a text may contain other line breaks, such as U+2028.
            for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n"):
                if json.loads(line)["rollout"] < texts[0].rollout:
                    kept.append(line)
        kept += [json.dumps(asdict(one), ensure_ascii=False) for one in texts[:_KEPT]]
        write_atomic(path, ("\n".join(kept) + "\n").encode())

    return write
