"""`idiolect align …`: the commands that align a language model."""

from __future__ import annotations

import typer

from idiolect.cli.align import judge, preference, reinforcement, reward, sft
from idiolect.cli.endings import ResumableCommand

__all__ = ["app"]

app = typer.Typer(
    name="align",
    help="Align a language model: SFT, reward models, preference tuning, RL, judging answers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command("sft", cls=ResumableCommand)(sft.sft)
app.command("reward", cls=ResumableCommand)(reward.reward)
for name in ("dpo", "ipo", "kto", "orpo", "simpo"):
    app.command(name, cls=ResumableCommand)(getattr(preference, name))
for name in ("ppo", "rloo", "grpo"):
    app.command(name, cls=ResumableCommand)(getattr(reinforcement, name))
app.command("judge")(judge.judge)
