"""`idiolect align ppo | rloo | grpo`: reinforcement learning of a language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import typer

from idiolect.cli.align.alignment_options import (
    ChatOption,
    DataArgument,
    ModelArgument,
    StepsOption,
    TrainOption,
    training_plan,
)
from idiolect.cli.align.commands import command_of
from idiolect.cli.refusals import refuse_epochs
from idiolect.cli.text_options import MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import (
    CheckpointingOption,
    EpochsOption,
    LearningRateOption,
    LoraModulesOption,
    LoraRankOption,
    MaxLengthOption,
    MicroBatchSizeOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    SeedOption,
    TensorboardOption,
    given,
    local_device,
)
from idiolect.text.skipped import MAX_UNREADABLE

__all__ = ["grpo", "ppo", "rloo"]

_RATES = {"ppo": 1e-5, "rloo": 1e-6, "grpo": 1e-6}
_PPO = {"value_clip", "value_weight", "gamma", "gae_lambda", "whiten_rewards"}
_GRPO = {"loss"}

_Reward = Annotated[
    str,
    typer.Option(
        help="model:FOLDER, classifier:FOLDER:LABEL, python:FILE.py:FUNCTION, answer, "
        "regex:PATTERN, or search:INDEX for nDCG@10 of the completion as a query."
    ),
]


def _raise_reward(
    algorithm: str,
    context: typer.Context,
    model: ModelArgument,
    data: DataArgument,
    out: RunFolderOption,
    reward: _Reward,
    judge: Annotated[
        str | None,
        typer.Option(help="A reward that is only reported, to detect reward hacking."),
    ] = None,
    num_generations: Annotated[
        int | None, typer.Option(help="Completions sampled for each prompt.", min=1, max=4096)
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(help="Maximum tokens of a completion.", min=1)
    ] = 64,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature.", min=0.01, max=100)
    ] = 1.0,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the KL penalty.", min=0, max=1000)
    ] = None,
    kl_target: Annotated[
        float | None,
        typer.Option(help="Adapt beta towards this KL divergence, in nats.", min=0.001, max=1e6),
    ] = None,
    updates: Annotated[
        int | None, typer.Option(help="Passes over each rollout.", min=1, max=1000)
    ] = None,
    mini_batches: Annotated[int, typer.Option(help="Steps per pass.", min=1, max=10_000)] = 1,
    clip: Annotated[
        float, typer.Option(help="Clip range ε of the ratio.", min=0.001, max=10)
    ] = 0.2,
    value_clip: Annotated[float, typer.Option(help="Clip range of a value.", min=0)] = 0.2,
    value_weight: Annotated[float, typer.Option(help="Weight of the value loss.", min=0)] = 0.1,
    gamma: Annotated[float, typer.Option(help="Discount factor.", min=0, max=1)] = 1.0,
    gae_lambda: Annotated[float, typer.Option(help="GAE decay λ.", min=0, max=1)] = 0.95,
    whiten_rewards: Annotated[
        bool,
        typer.Option(
            "--whiten-rewards/--plain-rewards", help="Divide rewards by their standard deviation."
        ),
    ] = True,
    loss: Annotated[
        Literal["dapo", "grpo", "dr_grpo"],
        typer.Option(help="Average the loss over tokens, over completions, or as Dr. GRPO."),
    ] = "dapo",
    missing_end_reward: Annotated[
        float | None,
        typer.Option(help="Reward of a completion without an end token.", min=-1e6, max=1e6),
    ] = None,
    chat: ChatOption = None,
    train: TrainOption = "all",
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    epochs: EpochsOption = 1,
    steps: StepsOption = None,
    max_length: MaxLengthOption = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Completions per step (16).", min=1)
    ] = None,
    micro_batch_size: MicroBatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    gradient_checkpointing: CheckpointingOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    tensorboard: TensorboardOption = False,
) -> None:
    from idiolect.alignment.reinforcement.policy_settings import PolicySettings
    from idiolect.alignment.reinforcement.prompts import read_prompts
    from idiolect.alignment.reinforcement.rewards import load_reward
    from idiolect.alignment.reinforcement.train_policy import policy_config, train_policy
    from idiolect.models.language_model import LanguageModel
    from idiolect.pipeline.report.alignment_page import write_alignment_report
    from idiolect.text.skipped import Skipped

    refuse_epochs(context, steps)
    settings = PolicySettings(
        algorithm=algorithm,  # type: ignore[arg-type]
        num_generations=num_generations,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        beta=beta,
        kl_target=kl_target,
        updates=updates,
        mini_batches=mini_batches,
        clip=clip,
        value_clip=value_clip,
        value_weight=value_weight,
        gamma=gamma,
        gae_lambda=gae_lambda,
        whiten_rewards=whiten_rewards,
        loss=loss,
        missing_end_reward=missing_end_reward,
    )
    run, values = training_plan(
        context,
        train,
        lora_r,
        lora_target_modules,
        usual_rate=_RATES[algorithm],
        max_length=max_length,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        learning_rate=learning_rate,
        gradient_checkpointing=gradient_checkpointing,
        precision=precision,
        save_steps=save_steps,
        seed=seed,
    )
    config, skipped = policy_config(**values), Skipped()
    scorer = load_reward(reward, device=local_device())
    held_out = None if judge is None else load_reward(judge, device=local_device())
    prompts = read_prompts(data, skipped=skipped, max_unreadable=max_unreadable)
    report_skipped(skipped, data.name)
    train_policy(
        LanguageModel.load(model, device=local_device()),
        prompts,
        scorer,
        output_dir=out,
        settings=settings,
        judge=held_out,
        reward_name=reward,
        chat=chat,
        config=config,
        tensorboard=tensorboard,
        **given(epochs=epochs, steps=steps),
        **run,
    )
    typer.echo(f"the model is in {out / 'model'}, the report in {write_alignment_report(out)}")


def _command(algorithm: str, summary: str, without: set[str]) -> Callable[..., None]:
    doc = f"""{summary} Run it again to resume.

    Records hold a `prompt`, and what the reward needs. The reference is the model as it is given.
    OUT/report.html plots reward, divergence, entropy, length and the judge.

    Example: [bold]idiolect align {algorithm} smollm2 prompts.jsonl --reward answer --train lora
    --steps 50 -o runs/{algorithm}[/bold]
    """
    return command_of(_raise_reward, algorithm, doc, without=without)


ppo = _command("ppo", "Raise a reward with a value head and clipped steps (PPO).", _GRPO)
rloo = _command(
    "rloo", "Raise a reward against the mean of the other samples (RLOO).", _PPO | _GRPO
)
grpo = _command(
    "grpo", "Raise a reward, normalised within the samples of a prompt (GRPO, Dr. GRPO).", _PPO
)
