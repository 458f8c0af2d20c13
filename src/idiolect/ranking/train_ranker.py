"""What training a ranking model is, whichever model it is: groups in, one run of the one loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from idiolect.encoding.objectives.pair_batches import ShuffledEpochs
from idiolect.errors import ConfigError
from idiolect.nn.transformer import Transformer
from idiolect.ranking.groups import QueryGroup, check_groups, fingerprint_groups
from idiolect.training.checkpoint import RunFolder
from idiolect.training.frozen_rows import check_rows, row_fingerprints
from idiolect.training.loop import Objective, Trainer
from idiolect.training.optim import choose_parameters
from idiolect.training.training_config import TrainingConfig

__all__ = ["learn", "ranking_plan"]


def ranking_plan(**values: Any) -> TrainingConfig:
    """Return the usual plan of a ranking model: 16 groups a step, and a rate of 2e-5 that falls.

    Args:
        values: Fields of `TrainingConfig` that are to be others.
    """
    usual = {"batch": 16, "learning_rate": 2e-5, "last_rate": 0.0, "weight_decay": 0.01}
    return TrainingConfig.of(usual | values)


def learn(
    network: Transformer,
    goal: Callable[[Sequence[QueryGroup]], Objective],
    groups: Iterable[QueryGroup],
    *,
    bodies: Sequence[Transformer],
    read: Callable[[str], bool],
    record: Mapping[str, Any],
    out: str | Path,
    epochs: int,
    plan: TrainingConfig | None,
) -> RunFolder:
    """Train a network on groups; a run that was ended is gone on with.

    Args:
        network: What the loop drives, and keeps the state of.
        goal: Makes the objective of the groups.
        groups: Queries with documents and labels; a row of the plan is a group.
        bodies: The published networks in it, whose original embedding rows do not move.
        read: Which of a body's parameters, by name, have a part in a score.
        record: What the run is, beside groups, steps and plan.
        out: The run's folder; see `RunFolder`.
        epochs: Passes over the groups.
        plan: Sizes and rates, by default `ranking_plan`'s.

    Returns:
        The folder; the model is not yet in it.

    Raises:
        InputError: There are no groups, or their labels are none.
        ConfigError: Fewer than one pass.
        CheckpointError: `out` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
        VerificationError: Original rows moved.
    """
    checked = check_groups(groups)
    if epochs < 1:
        raise ConfigError(f"{epochs} passes over the groups", hint="at least 1")
    plan = plan or ranking_plan()
    source = ShuffledEpochs(len(checked), rows=plan.batch, seed=plan.seed)
    steps = epochs * source.steps
    folder = RunFolder(out)
    folder.begin(
        {
            "groups": fingerprint_groups(checked),
            "steps": steps,
            "plan": asdict(plan),
            **record,
        }
    )
    for body in bodies:
        for name, parameter in choose_parameters(body, "all").items():
            parameter.requires_grad_(read(name))
    frozen = [row_fingerprints(body) for body in bodies]
    Trainer(network, goal(checked), source, plan, steps=steps, folder=folder).run()
    for body, before in zip(bodies, frozen, strict=True):
        check_rows(body, before)
    network.eval()
    return folder
